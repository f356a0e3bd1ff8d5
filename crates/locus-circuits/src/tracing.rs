//! Causal tracing: which states of the model carry a fact?
//!
//! The subject's token embeddings are corrupted by noise, so that the model no longer says the answer. Then one state
//! is restored to its clean value; the probability that this brings back is the state's indirect effect:
//!
//! ```text
//! total effect       p - p*
//! indirect effect    IE(token, layer) = mean over samples of p(answer | state restored) - p*
//! ```
//!
//! with `p` the clean probability of the answer and `p*` the mean corrupted one. All cells use the same noise. The
//! state is the residual stream leaving a block, or the output of attention or MLP, the latter two in a window of
//! layers. In the severed variant the residual stream of one token is restored while the outputs of its MLPs (or of
//! attention) in later layers are held at their corrupted values, which cuts off the effect that goes through them.
//!
//! Source: Meng et al. 2022 (arXiv 2202.05262, section 2.1 and appendix B) and its code. Deviations: the window is
//! scaled to the model's depth (theirs is 10 layers of 48); noise comes from a counter-based generator. To save work,
//! states before the subject are left out (they are never corrupted, so their effect is zero), a cell runs from its
//! first restored layer and its token on, with the corrupted run's keys and values of the tokens before, and logits are
//! computed at the last token only.
//!
//! Letters: `t` tokens, `L` layers, `s` samples, `d` width.

use std::ops::Range;

use locus_data::find_subject;
use locus_gpt2::internal::box_muller;
use locus_gpt2::{
    Batch, Config, Error, Gpt2, HookPoint, KvCache, Norm, ParamId, Result, Scalar, Tokenizer, compiled,
    log_sum_exp,
};
use ndarray::{Array2, ArrayViewMut2, Axis, concatenate, s};
use rayon::prelude::*;

use crate::noise::Noise;

/// A fact to trace: a prompt about a subject, and the token that should follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownFact {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Positions of the subject's tokens in the prompt.
    pub subject: Range<usize>,
    /// The token of the answer.
    pub answer: u32,
}

impl KnownFact {
    /// A fact from text. The subject is its first occurrence in the prompt as a word ([`find_subject`]); the answer is
    /// the attribute with a space before it.
    ///
    /// # Errors
    /// When the prompt does not contain the subject, a text cannot be tokenised, or the answer is not one token.
    pub fn from_text(tokenizer: &Tokenizer, prompt: &str, subject: &str, attribute: &str) -> Result<Self> {
        let missing =
            || Error::Input(format!("subject {subject:?} is not in the prompt {prompt:?} as a word"));
        KnownFact::located(tokenizer, prompt, find_subject(prompt, subject).ok_or_else(missing)?, attribute)
    }

    /// A fact from text, with the bytes of the subject in the prompt. White space around the attribute is dropped.
    ///
    /// Only answers of one token can be traced: the effects are those on the probability of the next token, and the
    /// first token of a longer answer is none. ROME's code likewise leaves out facts whose likeliest next token is not
    /// the whole answer.
    ///
    /// # Errors
    /// When the subject is not a part of the prompt, or the answer is not one token.
    pub fn located(
        tokenizer: &Tokenizer,
        prompt: &str,
        subject: Range<usize>,
        attribute: &str,
    ) -> Result<Self> {
        let attribute = attribute.trim();
        if attribute.is_empty() {
            return Err(Error::Input("the attribute is empty; expected at least one word".into()));
        }
        let (tokens, subject) = tokenizer.locate(prompt, subject)?;
        let answer = tokenizer.encode_some("attribute", &format!(" {attribute}"))?;
        let [answer] = answer[..] else {
            let n = answer.len();
            return Err(Error::Input(format!(
                "attribute {attribute:?} is {n} tokens; expected one, to be traced"
            )));
        };
        Ok(KnownFact { prompt: tokens, subject, answer })
    }

    /// The fact behind a token, such as that of the beginning of a text.
    #[must_use]
    pub fn after(mut self, token: u32) -> Self {
        self.prompt.insert(0, token);
        self.subject = self.subject.start + 1..self.subject.end + 1;
        self
    }

    /// Checks that the fact fits a model.
    ///
    /// # Errors
    /// When the prompt is longer than the context, a token is unknown or the subject lies outside of the prompt.
    pub fn fits(&self, config: &Config) -> Result<()> {
        self.check(config)?;
        let (length, most) = (self.prompt.len(), config.n_positions);
        if length > most {
            return Err(Error::Input(format!(
                "the prompt has {length} tokens; the model takes at most {most}"
            )));
        }
        if let Some(token) = self.prompt.iter().find(|&&token| token as usize >= config.vocab_size) {
            let vocabulary = config.vocab_size;
            return Err(Error::Input(format!("token {token} is not among the {vocabulary} of the model")));
        }
        Ok(())
    }

    /// Whether the model's likeliest next token is the answer.
    ///
    /// # Errors
    /// When the fact does not fit the model.
    pub fn is_known<F: Scalar>(&self, model: &Gpt2<F>) -> Result<bool> {
        self.check(model.config())?;
        let hidden = locus_gpt2::last_hidden(model, &Batch::new(model.config(), &[&self.prompt])?);
        Ok(locus_gpt2::argmax(model.logits(hidden.view()).view()) == [self.answer as usize])
    }

    fn check(&self, config: &Config) -> Result<()> {
        let Range { start, end } = self.subject;
        if start >= end || end > self.prompt.len() {
            let n = self.prompt.len();
            return Err(Error::Input(format!("subject tokens {start}..{end} of a prompt of {n}")));
        }
        let vocabulary = config.vocab_size;
        if self.answer as usize >= vocabulary {
            let why = format!("the answer is token {}; the model's vocabulary has {vocabulary}", self.answer);
            return Err(Error::Input(why));
        }
        Ok(())
    }
}

/// A kind of state that is restored to its clean value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchedState {
    /// The residual stream leaving a block.
    Hidden,
    /// The output of the MLPs in a window of layers.
    Mlp,
    /// The output of attention in a window of layers.
    Attention,
}

impl PatchedState {
    /// All three.
    pub const ALL: [PatchedState; 3] = [PatchedState::Hidden, PatchedState::Mlp, PatchedState::Attention];

    /// The name used in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PatchedState::Hidden => "hidden",
            PatchedState::Mlp => "mlp",
            PatchedState::Attention => "attention",
        }
    }

    fn hook_point(self) -> HookPoint {
        match self {
            PatchedState::Hidden => HookPoint::ResidPost,
            PatchedState::Mlp => HookPoint::MlpOut,
            PatchedState::Attention => HookPoint::AttnOut,
        }
    }
}

/// Settings of causal tracing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tracing {
    /// Number of corrupted copies of the prompt.
    pub samples: usize,
    /// Standard deviation of the noise on every entry of the subject's token embeddings.
    pub noise: f64,
    /// Layers restored together around a layer `l`, for MLP and attention: `l - window / 2` to
    /// `l + (window - 1) / 2`, cut at the ends.
    pub window: usize,
    /// Seed of the noise.
    pub seed: u64,
}

impl Tracing {
    /// The published settings: ten samples, noise of three standard deviations of the subjects' embeddings
    /// ([`embedding_deviation`]), and a window scaled to the model's depth.
    pub fn new<F: Scalar>(model: &Gpt2<F>, facts: &[KnownFact], seed: u64) -> Self {
        Tracing {
            samples: 10,
            noise: 3.0 * embedding_deviation(model, facts),
            window: (10.0 / 48.0 * model.config().n_layer as f64).round().max(1.0) as usize,
            seed,
        }
    }
}

/// Standard deviation (with Bessel's correction) over all entries of the token embeddings of all subjects' tokens.
pub fn embedding_deviation<F: Scalar>(model: &Gpt2<F>, facts: &[KnownFact]) -> f64 {
    let wte = model.matrix(ParamId::TokenEmbedding);
    let tokens = facts.iter().flat_map(|fact| &fact.prompt[fact.subject.clone()]);
    let entries: Vec<f64> = tokens.flat_map(|&token| wte.row(token as usize)).map(|x| x.as_f64()).collect();
    let n = entries.len() as f64;
    let mean = entries.iter().sum::<f64>() / n;
    (entries.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)).sqrt()
}

/// The effects of one fact's states, as differences of probabilities.
#[derive(Clone, Debug, PartialEq)]
pub struct Effects {
    /// Clean probability of the answer.
    pub clean: f64,
    /// Mean corrupted probability.
    pub corrupted: f64,
    /// Indirect effect `[t, L]` of each state, in the order of [`PatchedState::ALL`].
    pub indirect: [Array2<f64>; 3],
    /// Indirect effect `[L]` of the residual stream of the subject's last token with its later MLPs held corrupted.
    pub without_mlp: Vec<f64>,
    /// Indirect effect `[L]` of the residual stream of the subject's last token with its later attention held
    /// corrupted.
    pub without_attention: Vec<f64>,
}

impl Effects {
    /// The total effect, `p - p*`.
    pub fn total(&self) -> f64 {
        self.clean - self.corrupted
    }
}

/// Traces one fact: the effects of restoring each of its states.
///
/// # Errors
/// When the fact does not fit the model.
///
/// # Panics
/// When there is no sample or no layer in the window.
pub fn trace_fact<F: Scalar>(model: &Gpt2<F>, fact: &KnownFact, how: &Tracing) -> Result<Effects> {
    assert!(how.samples > 0 && how.window > 0, "no sample or no layer to restore");
    F::run::<TraceJob>((model, fact, how))
}

compiled!(TraceJob<'a>: <F> (&'a Gpt2<F>, &'a KnownFact, &'a Tracing) => Result<Effects>, trace);

fn trace<F: Scalar>((model, fact, how): (&Gpt2<F>, &KnownFact, &Tracing)) -> Result<Effects> {
    fact.check(model.config())?;
    let runs = FactRuns::new(model, fact, how)?;
    let (t, layers) = (fact.prompt.len(), model.config().n_layer);
    let corrupted = runs.corrupted;
    let effect = |cell: Restoration| runs.probability(cell) - corrupted;
    let indirect = PatchedState::ALL.map(|what| {
        let cells: Vec<(usize, usize)> =
            (fact.subject.start..t).flat_map(|token| (0..layers).map(move |layer| (token, layer))).collect();
        let effects: Vec<f64> = cells
            .par_iter()
            .map(|&(token, layer)| {
                let restored = match what {
                    PatchedState::Hidden => layer..layer + 1,
                    _ => layer.saturating_sub(how.window / 2)..(layer + how.window.div_ceil(2)).min(layers),
                };
                effect(Restoration { token, what, layers: restored, held: None })
            })
            .collect();
        let mut all = Array2::zeros((t, layers));
        cells.iter().zip(effects).for_each(|(&cell, effect)| all[cell] = effect);
        all
    });
    let severed = |point: HookPoint| -> Vec<f64> {
        let token = fact.subject.end - 1;
        let cell = |layer: usize| Restoration {
            token,
            what: PatchedState::Hidden,
            layers: layer..layer + 1,
            held: Some(point),
        };
        (0..layers).into_par_iter().map(|layer| effect(cell(layer))).collect()
    };
    Ok(Effects {
        clean: runs.clean,
        corrupted,
        indirect,
        without_mlp: severed(HookPoint::MlpOut),
        without_attention: severed(HookPoint::AttnOut),
    })
}

/// Token plus position embeddings of every sample, `[t, d]` each, the subject's tokens corrupted.
///
/// # Errors
/// When the prompt does not fit the model.
pub fn corrupted_embeddings<F: Scalar>(
    model: &Gpt2<F>,
    fact: &KnownFact,
    how: &Tracing,
) -> Result<Vec<Array2<F>>> {
    F::run::<CorruptedJob>((model, fact, how))
}

compiled!(CorruptedJob<'a>: <F> (&'a Gpt2<F>, &'a KnownFact, &'a Tracing) => Result<Vec<Array2<F>>>, corrupted);

fn corrupted<F: Scalar>((model, fact, how): (&Gpt2<F>, &KnownFact, &Tracing)) -> Result<Vec<Array2<F>>> {
    fact.check(model.config())?;
    let clean = model.embed(&Batch::new(model.config(), &[&fact.prompt])?);
    let sample = |sample: usize| {
        let noise = Noise::new(how.seed, sample as u64, 0);
        let mut embedded = clean.clone();
        let mut subject = embedded.slice_mut(s![fact.subject.clone(), ..]);
        for (i, x) in subject.iter_mut().enumerate() {
            *x += F::from_f64(how.noise * normal(noise, i));
        }
        embedded
    };
    Ok((0..how.samples).map(sample).collect())
}

/// A cell: which states are restored.
struct Restoration {
    token: usize,
    what: PatchedState,
    layers: Range<usize>,
    /// Hook point (output of attention or MLP) that stays as in the corrupted run for this token.
    held: Option<HookPoint>,
}

/// The clean and the corrupted run of a fact, with the states that cells need.
struct FactRuns<'a, F> {
    model: &'a Gpt2<F>,
    fact: &'a KnownFact,
    samples: Vec<&'a [u32]>,
    /// States of the clean run by [`PatchedState`] and layer, `[t, d]` each.
    clean_states: [Vec<Array2<F>>; 3],
    /// States of the corrupted run by [`PatchedState`] and layer, `[s t, d]` each.
    corrupted_states: [Vec<Array2<F>>; 3],
    /// Corrupted embeddings, `[s t, d]`.
    embedded: Array2<F>,
    /// Queries, keys and values of the corrupted run by layer, `[s t, 3d]` each.
    qkv: Vec<Array2<F>>,
    clean: f64,
    corrupted: f64,
}

impl<'a, F: Scalar> FactRuns<'a, F> {
    fn new(model: &'a Gpt2<F>, fact: &'a KnownFact, how: &Tracing) -> Result<Self> {
        let samples = vec![fact.prompt.as_slice(); how.samples];
        let batch = Batch::new(model.config(), &samples)?;
        let parts = corrupted_embeddings(model, fact, how)?;
        let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
        let embedded = concatenate(Axis(0), &views).expect("samples have equal shape");
        let one = Batch::new(model.config(), &samples[..1])?;
        let (clean_states, _, clean) = run(model, &one, model.embed(&one), fact.answer);
        let (corrupted_states, qkv, corrupted) = run(model, &batch, embedded.clone(), fact.answer);
        Ok(FactRuns { model, fact, samples, clean_states, corrupted_states, embedded, qkv, clean, corrupted })
    }

    /// Mean probability of the answer over the samples with a cell restored.
    fn probability(&self, cell: Restoration) -> f64 {
        let FactRuns { model, samples, .. } = self;
        let Restoration { token, what, layers, held } = cell;
        let t = self.fact.prompt.len();
        let starts = vec![token; samples.len()];
        let prefix = KvCache::prefixes(&self.qkv, &vec![t; samples.len()], &starts);
        let suffixes: Vec<&[u32]> = samples.iter().map(|sample| &sample[token..]).collect();
        let batch = Batch::after(model.config(), prefix, &suffixes).expect("whole prompts fit");
        // Rows of the token itself: the first of each sequence.
        let token_rows: Vec<usize> = batch.sequences().map(|rows| rows.start).collect();
        let ends = |states: &Array2<F>| {
            let rows: Vec<usize> = (0..samples.len()).flat_map(|i| i * t + token..(i + 1) * t).collect();
            states.select(Axis(0), &rows)
        };
        let restore = |state: &mut ArrayViewMut2<F>, states: &[Vec<Array2<F>>; 3], layer: usize| {
            let clean = states[what as usize][layer].row(token);
            token_rows.iter().for_each(|&row| state.row_mut(row).assign(&clean));
        };
        let (first, resid) = match what {
            PatchedState::Hidden => {
                let mut resid = ends(&self.corrupted_states[what as usize][layers.start]);
                restore(&mut resid.view_mut(), &self.clean_states, layers.start);
                (layers.start + 1, resid)
            }
            _ => match layers.start.checked_sub(1) {
                Some(before) => {
                    (layers.start, ends(&self.corrupted_states[PatchedState::Hidden as usize][before]))
                }
                None => (0, ends(&self.embedded)),
            },
        };
        let mut hook = |layer: usize, point: HookPoint, mut state: ArrayViewMut2<F>| {
            if what != PatchedState::Hidden && point == what.hook_point() && layers.contains(&layer) {
                restore(&mut state, &self.clean_states, layer);
            }
            if held == Some(point) {
                let kind =
                    if point == HookPoint::MlpOut { PatchedState::Mlp } else { PatchedState::Attention };
                let states = &self.corrupted_states[kind as usize][layer];
                for (i, &row) in token_rows.iter().enumerate() {
                    state.row_mut(row).assign(&states.row(i * t + token));
                }
            }
        };
        // Without a tape, which would keep the states of all layers for every cell.
        let x = model.run(&batch).from_layer(first, resid).with_hooks(&mut hook).resid();
        let hidden = model.layer_norm(Norm::Final, x.select(Axis(0), &batch.last_rows()).view());
        answer_probability(model, hidden, self.fact.answer)
    }
}

/// Runs whole prompts: states by [`PatchedState`] and layer, queries, keys and values by layer, and the mean
/// probability of the answer.
#[allow(clippy::type_complexity)]
fn run<F: Scalar>(
    model: &Gpt2<F>,
    batch: &Batch<F>,
    embedded: Array2<F>,
    answer: u32,
) -> ([Vec<Array2<F>>; 3], Vec<Array2<F>>, f64) {
    let mut states = [const { Vec::new() }; 3];
    let mut qkv = Vec::new();
    let mut keep = |_: usize, point: HookPoint, state: ArrayViewMut2<F>| {
        if point == HookPoint::Qkv {
            qkv.push(state.to_owned());
        }
        for what in PatchedState::ALL {
            if point == what.hook_point() {
                states[what as usize].push(state.to_owned());
            }
        }
    };
    let out = model.run(batch).from_layer(0, embedded).with_hooks(&mut keep).resid();
    let hidden = model.layer_norm(Norm::Final, out.select(Axis(0), &batch.last_rows()).view());
    (states, qkv, answer_probability(model, hidden, answer))
}

/// Mean over rows `[s, d]` of the probability of a token.
fn answer_probability<F: Scalar>(model: &Gpt2<F>, hidden: Array2<F>, answer: u32) -> f64 {
    let logits = model.logits(hidden.view());
    let probability = |row: ndarray::ArrayView1<F>| {
        let row = row.to_slice().expect("rows are contiguous");
        (row[answer as usize].as_f64() - log_sum_exp(row)).exp()
    };
    logits.rows().into_iter().map(probability).sum::<f64>() / hidden.nrows() as f64
}

/// A standard normal number by the Box-Muller transform of two uniform ones.
fn normal(noise: Noise, index: usize) -> f64 {
    box_muller(f64::from(noise.uniform(2 * index)), f64::from(noise.uniform(2 * index + 1)))
}

/// Position of a token in a prompt, relative to the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenPosition {
    /// The first of several subject tokens.
    FirstSubject,
    /// Neither the first nor the last subject token.
    MiddleSubject,
    /// The last subject token, or the only one.
    LastSubject,
    /// The token after the subject.
    FirstAfter,
    /// Further tokens.
    Further,
    /// The last token of the prompt, when it is not the subject's.
    Last,
}

impl TokenPosition {
    /// All six, in order.
    pub const ALL: [TokenPosition; 6] = [
        TokenPosition::FirstSubject,
        TokenPosition::MiddleSubject,
        TokenPosition::LastSubject,
        TokenPosition::FirstAfter,
        TokenPosition::Further,
        TokenPosition::Last,
    ];

    /// The name used in tables.
    pub fn name(self) -> &'static str {
        match self {
            TokenPosition::FirstSubject => "first subject token",
            TokenPosition::MiddleSubject => "middle subject tokens",
            TokenPosition::LastSubject => "last subject token",
            TokenPosition::FirstAfter => "first token after",
            TokenPosition::Further => "further tokens",
            TokenPosition::Last => "last token",
        }
    }

    /// The position of a token; `None` before the subject, where nothing is corrupted.
    pub fn of(fact: &KnownFact, token: usize) -> Option<TokenPosition> {
        let Range { start, end } = fact.subject;
        Some(match token {
            _ if token < start => return None,
            _ if token + 1 == end => TokenPosition::LastSubject,
            _ if token == start => TokenPosition::FirstSubject,
            _ if token < end => TokenPosition::MiddleSubject,
            _ if token + 1 == fact.prompt.len() => TokenPosition::Last,
            _ if token == end => TokenPosition::FirstAfter,
            _ => TokenPosition::Further,
        })
    }
}

/// Indirect effects of one kind of state, averaged by token position.
#[derive(Clone, Debug, PartialEq)]
pub struct MeanEffects {
    /// Kind of state that was restored.
    pub what: PatchedState,
    /// Effects of each fact that has a token at the position, `[n, L]` for each of [`TokenPosition::ALL`], facts in
    /// order; a fact's tokens at one position are averaged.
    pub by_fact: [Array2<f64>; 6],
    /// Mean over those facts, `[6, L]`; zero where there is none.
    pub mean: Array2<f64>,
    /// Number of facts that have a token at each position.
    pub facts: [usize; 6],
}

/// Averages effects over facts by token position, for each kind of state.
///
/// # Panics
/// When the numbers of facts and effects differ.
pub fn average_effects(facts: &[KnownFact], effects: &[Effects]) -> [MeanEffects; 3] {
    assert_eq!(facts.len(), effects.len(), "effects of every fact");
    let layers = effects.first().map_or(0, |effects| effects.indirect[0].ncols());
    PatchedState::ALL.map(|what| {
        let by_fact = TokenPosition::ALL.map(|position| {
            let mut rows = Array2::<f64>::zeros((0, layers));
            for (fact, effects) in facts.iter().zip(effects) {
                let tokens: Vec<usize> = (0..fact.prompt.len())
                    .filter(|&token| TokenPosition::of(fact, token) == Some(position))
                    .collect();
                let of_tokens = effects.indirect[what as usize].select(Axis(0), &tokens);
                if let Some(mean) = of_tokens.mean_axis(Axis(0)) {
                    rows.push_row(mean.view()).expect("as many layers in every fact");
                }
            }
            rows
        });
        let mut mean = Array2::<f64>::zeros((TokenPosition::ALL.len(), layers));
        for (mut mean, rows) in mean.rows_mut().into_iter().zip(&by_fact) {
            if let Some(of_facts) = rows.mean_axis(Axis(0)) {
                mean.assign(&of_facts);
            }
        }
        let facts = std::array::from_fn(|position| by_fact[position].nrows());
        MeanEffects { what, by_fact, mean, facts }
    })
}
