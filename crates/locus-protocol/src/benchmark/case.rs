//! [`Case`]: what a model is asked about one request, as tokens; [`Observation`]: what it answered.
//!
//! Targets are scored after their prompts with a space between them. The likeliest tokens are taken under teacher
//! forcing (behind the target's own tokens) and in greedy generation (behind the model's own tokens), both in one pass
//! as far as they agree: greedy generation needs further passes only behind its first token that the target does not
//! have.

use anyhow::{Context, Result};
use locus_data::EditRequest;
use locus_data::groups::entity;
use locus_data::requests::Beside;
use locus_data::seed::stream;
use locus_gpt2::ndarray::Axis;
use locus_gpt2::{
    Config, Gpt2, PromptTargets, Sampling, Scalar, Tokenizer, argmax, compiled, log_sum_exp, unique_inverse,
};
use serde::{Deserialize, Serialize};

/// Rows of logits that are computed at a time.
const ROWS_AT_A_TIME: usize = 128;
/// Number of likeliest tokens that generated text is drawn from, as in ROME's code.
const TOP_K: usize = 5;

/// What a prompt is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProbeKind {
    /// The fact, in the words that are written.
    Rewrite,
    /// The fact in other words.
    Paraphrase,
    /// Another subject of which the true target is right.
    Neighbourhood,
    /// Something else that should stay as it is.
    Locality,
    /// Something that follows from the fact.
    Portability,
}

/// A prompt with its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What the prompt is about.
    pub kind: ProbeKind,
    /// Text of the prompt.
    pub text: String,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of what may follow: the new and, if there is one, the true target; of questions, the answer.
    pub targets: Vec<Vec<u32>>,
}

impl Probe {
    /// The right answer: after the edit for the fact itself, before and after it for what should stay.
    pub fn wanted(&self) -> &[u32] {
        &self.targets[self.wanted_index()]
    }

    fn wanted_index(&self) -> usize {
        usize::from(self.kind == ProbeKind::Neighbourhood)
    }
}

/// What a model is asked about one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Number of the request.
    pub case_id: u64,
    /// Subject without article, in lower case: requests about one subject are resampled together.
    pub subject: String,
    /// Prompts with their targets; the first is the one that is written.
    pub probes: Vec<Probe>,
    /// Prompts for free text.
    pub generation_prompts: Vec<Vec<u32>>,
    /// Relation and new target by which texts of reference are found.
    pub new_fact: Option<[String; 2]>,
}

/// How free text is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Generation {
    /// Tokens of a text, its prompt among them.
    pub tokens: usize,
    /// Number of likeliest tokens that the next one is drawn from; 1 is greedy.
    pub top_k: usize,
    /// Seed of the draws.
    pub seed: u64,
}

impl Generation {
    /// Text of a number of tokens, drawn as ROME's code does from the five likeliest, with a seed.
    pub fn new(tokens: usize, seed: u64) -> Self {
        Generation { tokens, top_k: TOP_K, seed }
    }
}

/// What a model answered to one prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// Mean NLL per token of each target, in nats.
    pub nll: Vec<f64>,
    /// Likeliest token at each place of the wanted target, behind the target's own tokens.
    pub forced: Vec<u32>,
    /// Greedy generation, as long as the wanted target unless the context ends before.
    pub free: Vec<u32>,
}

/// What a model answered about one request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// One answer per prompt of the case.
    pub answers: Vec<Answer>,
    /// Generated texts, prompts included.
    pub texts: Vec<String>,
}

impl Case {
    /// Tokenises what is asked about a request; `before` comes before every prompt.
    ///
    /// # Errors
    /// When a text gives no token, or a prompt with a target does not fit the model; the message names the prompt.
    pub fn new(
        tokenizer: &Tokenizer,
        config: &Config,
        request: &EditRequest,
        beside: &Beside,
        before: Option<u32>,
    ) -> Result<Self> {
        let prompt = |text: &str| -> Result<Vec<u32>> {
            let mut tokens = tokenizer.encode_some("prompt", text.trim())?;
            tokens.splice(..0, before);
            Ok(tokens)
        };
        let target = |text: &str| tokenizer.encode_some("target", &format!(" {}", text.trim()));
        let own = [Some(&request.target_new), request.target_true.as_ref()];
        let own: Vec<Vec<u32>> =
            own.into_iter().flatten().map(|text| Ok(target(text)?)).collect::<Result<_>>()?;
        let mut probes = Vec::new();
        let mut add = |kind: ProbeKind, text: &str, targets: Vec<Vec<u32>>| -> Result<()> {
            let at = || format!("prompt {text:?}");
            let probe =
                Probe { kind, text: text.to_owned(), prompt: prompt(text).with_context(at)?, targets };
            PromptTargets::<f32>::new(config, &probe.pairs()).with_context(at)?;
            probes.push(probe);
            Ok(())
        };
        add(ProbeKind::Rewrite, &request.full_prompt(), own.clone())?;
        for text in &request.paraphrase_prompts {
            add(ProbeKind::Paraphrase, text, own.clone())?;
        }
        if own.len() == 2 {
            for text in &request.neighborhood_prompts {
                add(ProbeKind::Neighbourhood, text, own.clone())?;
            }
        }
        // A question with the true target for its answer is a neighbourhood prompt already.
        let other = beside.locality.iter().filter(|q| !request.neighborhood_prompts.contains(&q.prompt));
        for question in other {
            add(ProbeKind::Locality, &question.prompt, vec![target(&question.answer)?])?;
        }
        for question in &beside.portability {
            add(ProbeKind::Portability, &question.prompt, vec![target(&question.answer)?])?;
        }
        let generation_prompts =
            beside.generation_prompts.iter().map(|text| prompt(text)).collect::<Result<Vec<_>>>()?;
        if let Some(long) = generation_prompts.iter().map(Vec::len).find(|&n| n > config.n_positions) {
            let most = config.n_positions;
            anyhow::bail!("a generation prompt has {long} tokens; the model takes at most {most}");
        }
        Ok(Case {
            case_id: request.case_id,
            subject: entity(&request.subject),
            probes,
            generation_prompts,
            new_fact: beside.new_fact.clone(),
        })
    }

    /// Puts every prompt of the case to a model, and with `generation` lets it continue the generation prompts.
    ///
    /// # Errors
    /// When a prompt does not fit the model or generated tokens cannot be decoded.
    pub fn observe<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        generation: Option<(Generation, &Tokenizer)>,
    ) -> Result<Observation> {
        F::run::<ObserveJob>((self, model, generation))
    }
}

impl Probe {
    fn pairs(&self) -> Vec<(&[u32], &[u32])> {
        self.targets.iter().map(|target| (self.prompt.as_slice(), target.as_slice())).collect()
    }
}

type ObserveIn<'a, F> = (&'a Case, &'a Gpt2<F>, Option<(Generation, &'a Tokenizer)>);

compiled!(ObserveJob<'a>: <F> ObserveIn<'a, F> => Result<Observation>, observe);

fn observe<F: Scalar>((case, model, generation): ObserveIn<F>) -> Result<Observation> {
    let pairs: Vec<_> = case.probes.iter().flat_map(Probe::pairs).collect();
    let packed = PromptTargets::prefix_sharing(model.config(), &pairs)?;
    let (nll, likeliest) = predict(model, &packed);
    let (mut answers, mut place) = (Vec::with_capacity(case.probes.len()), 0);
    for probe in &case.probes {
        let mut answer = Answer { nll: Vec::new(), forced: Vec::new(), free: Vec::new() };
        for (index, target) in probe.targets.iter().enumerate() {
            let tokens = place..place + target.len();
            place = tokens.end;
            answer.nll.push(nll[tokens.clone()].iter().sum::<f64>() / target.len() as f64);
            if index == probe.wanted_index() {
                answer.forced = likeliest[tokens].to_vec();
            }
        }
        answer.free = greedy(model, &probe.prompt, probe.wanted(), &answer.forced)?;
        answers.push(answer);
    }
    let mut texts = Vec::new();
    if let Some((Generation { tokens, top_k, seed }, tokenizer)) = generation {
        let mut rng = stream(seed, "generated text", case.case_id);
        for prompt in &case.generation_prompts {
            let n = tokens.saturating_sub(prompt.len());
            let made = model.generate(
                prompt,
                n,
                Sampling::Draw { temperature: 1.0, top_k, top_p: 1.0, rng: &mut rng },
            )?;
            texts.push(tokenizer.decode(&[prompt.as_slice(), &made].concat())?);
        }
    }
    Ok(Observation { answers, texts })
}

/// NLL and likeliest token at every target.
fn predict<F: Scalar>(model: &Gpt2<F>, packed: &PromptTargets<F>) -> (Vec<f64>, Vec<u32>) {
    let hidden = model.run(&packed.batch).hidden();
    let rows: Vec<usize> = packed.targets.iter().map(|target| target.row).collect();
    let (rows, places) = unique_inverse(&rows);
    let (mut nll, mut likeliest) = (vec![0.0; places.len()], vec![0; places.len()]);
    for (chunk, rows) in rows.chunks(ROWS_AT_A_TIME).enumerate() {
        let logits = model.logits(hidden.select(Axis(0), rows).view());
        let best = argmax(logits.view());
        let sums: Vec<f64> = logits
            .rows()
            .into_iter()
            .map(|row| log_sum_exp(row.to_slice().expect("rows are contiguous")))
            .collect();
        let first = chunk * ROWS_AT_A_TIME;
        for (i, target) in packed.targets.iter().enumerate() {
            let Some(row) = places[i].checked_sub(first).filter(|&row| row < rows.len()) else { continue };
            nll[i] = sums[row] - logits[[row, target.token as usize]].as_f64();
            likeliest[i] = best[row] as u32;
        }
    }
    (nll, likeliest)
}

/// Greedy generation of as many tokens as the target has, given the likeliest ones behind the target's own tokens:
/// both go together up to and with the first that is not the target's.
fn greedy<F: Scalar>(model: &Gpt2<F>, prompt: &[u32], target: &[u32], forced: &[u32]) -> Result<Vec<u32>> {
    let same = forced.iter().zip(target).take_while(|(a, b)| a == b).count();
    let mut made = forced[..forced.len().min(same + 1)].to_vec();
    if made.len() < target.len() {
        let context = [prompt, &made].concat();
        if context.len() <= model.config().n_positions {
            made.extend(model.generate(&context, target.len() - made.len(), Sampling::Greedy)?);
        }
    }
    Ok(made)
}
