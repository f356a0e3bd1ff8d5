//! What `locus edit` says of each request: the answers before and after, in other words and about neighbours.

use std::io::Write;
use std::path::PathBuf;

use anyhow::Result;
use locus_data::EditRequest;
use locus_gpt2::Tokenizer;
use locus_metrics::editing::{Outcome as Success, flipped, harmonic_mean, new_wins, true_holds};
use locus_metrics::token::{beats, mean, probability};
use serde::Serialize;

use super::output::{one_line, stdout};
use super::skipped::SkippedRecords;
use crate::protocol::Written;
use crate::protocol::benchmark::{Answer, Case, ProbeKind};

/// One request in the output; NLLs are per token, in nats, and probabilities are `exp(-NLL)`.
#[derive(Serialize)]
pub struct Outcome {
    pub case_id: u64,
    prompt: String,
    subject: String,
    target_new: String,
    /// Null when the request has no true target.
    target_true: Option<String>,
    /// The model's own answer before and after, of as many tokens as the new target.
    answer: Vec<String>,
    pre_new: f64,
    pre_true: Option<f64>,
    post_new: f64,
    post_true: Option<f64>,
    /// Probability of the new target before and after.
    p_new: [f64; 2],
    /// Probability of the true target before and after.
    p_true: Option<[f64; 2]>,
    /// Whether the true target was the likelier one before, and the new one is after; null without a true target.
    flipped: Option<bool>,
    /// The fact in other words.
    paraphrases: Vec<Asked>,
    /// Other subjects, whose answer should stay the true target.
    neighbours: Vec<Asked>,
    steps: usize,
    /// Whether the new target is no likelier than before.
    pub failed: bool,
    /// Norms, denominators and residuals of the method.
    #[serde(skip_serializing_if = "serde_json::Map::is_empty")]
    measures: serde_json::Map<String, serde_json::Value>,
    /// Requests of the same patch that this one cannot be told from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<ConflictWith>,
    /// File of the patch.
    file: Option<PathBuf>,
}

/// A further prompt of a request.
#[derive(Serialize)]
struct Asked {
    prompt: String,
    /// Probability of the new target before and after.
    p_new: [f64; 2],
    /// Probability of the true target before and after.
    p_true: Option<[f64; 2]>,
    /// Whether the right target of the two is the likelier one after: the new one of a paraphrase, the true one of a
    /// neighbour; null without a true target.
    right: Option<bool>,
}

/// A request that another one cannot be told from.
#[derive(Serialize)]
pub struct ConflictWith {
    pub case_id: u64,
    #[serde(flatten)]
    pub kind: ConflictKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum ConflictKind {
    /// The prompts are one, the targets are not.
    Contradiction,
    /// Both are written for nearly the same key.
    SimilarKey { cosine: f64 },
}

impl Outcome {
    /// What is said of a request that was written, of which `file` is the patch.
    ///
    /// # Errors
    /// When an answer cannot be decoded.
    pub fn new(
        tokenizer: &Tokenizer,
        request: &EditRequest,
        case: &Case,
        written: Written,
        file: Option<PathBuf>,
    ) -> Result<Self> {
        let Written { case_id, before, after, steps, measures } = written;
        let both = |a: f64, b: f64| [probability(a), probability(b)];
        let asked = |kind: ProbeKind| -> Vec<Asked> {
            let answers = before.answers.iter().zip(&after.answers);
            let of = case.probes.iter().zip(answers).filter(|(probe, _)| probe.kind == kind);
            of.map(|(probe, (before, after))| Asked {
                prompt: probe.text.clone(),
                p_new: both(before.nll[0], after.nll[0]),
                p_true: before.nll.get(1).map(|&nll| both(nll, after.nll[1])),
                right: after.nll.get(1).map(|&of_true| match kind {
                    ProbeKind::Neighbourhood => beats(of_true, after.nll[0]),
                    _ => beats(after.nll[0], of_true),
                }),
            })
            .collect()
        };
        let (first, last) = (&before.answers[0], &after.answers[0]);
        let text = |answer: &Answer| Ok(tokenizer.decode(&answer.free)?.trim().to_owned());
        let answer: Result<Vec<String>> = [first, last].into_iter().map(text).collect();
        let (pre_new, post_new) = (first.nll[0], last.nll[0]);
        let (pre_true, post_true) = (first.nll.get(1).copied(), last.nll.get(1).copied());
        let turned = |(before, after)| flipped([pre_new, before], [post_new, after]);
        Ok(Outcome {
            case_id,
            prompt: case.probes[0].text.clone(),
            subject: request.subject.clone(),
            target_new: request.target_new.clone(),
            target_true: request.target_true.clone(),
            answer: answer?,
            pre_new,
            pre_true,
            post_new,
            post_true,
            p_new: both(pre_new, post_new),
            p_true: pre_true.zip(post_true).map(|(before, after)| both(before, after)),
            flipped: pre_true.zip(post_true).map(turned),
            paraphrases: asked(ProbeKind::Paraphrase),
            neighbours: asked(ProbeKind::Neighbourhood),
            steps,
            failed: post_new.is_nan() || post_new >= pre_new,
            measures: measures.into_iter().map(|(name, value)| (name, value.into())).collect(),
            conflicts: Vec::new(),
            file,
        })
    }

    /// Whether the NLLs of the targets are numbers.
    pub fn is_finite(&self) -> bool {
        let true_side = self.pre_true.into_iter().chain(self.post_true);
        true_side.chain([self.pre_new, self.post_new]).all(f64::is_finite)
    }

    /// What became of the answer, in a word or two.
    fn verdict(&self) -> &'static str {
        match (self.failed, self.flipped) {
            (true, _) => "failed",
            (false, Some(true)) => "flipped",
            (false, Some(false)) if self.pre_true.is_some_and(|old| beats(self.pre_new, old)) => "new before",
            (false, Some(false)) => "not flipped",
            (false, None) => "likelier",
        }
    }
}

/// Prints a line per request, and the scores over all of them; with `json` an object per line.
pub fn print(outcomes: &[Outcome], skipped: &SkippedRecords, json: bool) -> Result<()> {
    let mut out = stdout();
    if json {
        for outcome in outcomes {
            writeln!(out, "{}", serde_json::to_string(outcome)?)?;
        }
        if let Some(skipped) = skipped.json() {
            writeln!(out, "{}", serde_json::json!({ "skipped": skipped }))?;
        }
        return Ok(());
    }
    let rows: Vec<[String; 7]> = outcomes.iter().map(row).collect();
    let head = ["case", "prompt", "true", "new", "answer", "paraphrases", "neighbours"].map(str::to_owned);
    let width = |column: usize| {
        rows.iter().chain([&head]).map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    for row in [&head].into_iter().chain(&rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    scores(&mut out, outcomes)?;
    let mut files: Vec<&PathBuf> = outcomes.iter().filter_map(|outcome| outcome.file.as_ref()).collect();
    files.dedup();
    match files[..] {
        [] => {}
        [only] => writeln!(out, "wrote {}", one_line(&only.display().to_string()))?,
        [first, ..] => {
            let folder = first.parent().unwrap_or(first).display().to_string();
            writeln!(out, "wrote {} patches to {}", files.len(), one_line(&folder))?;
        }
    }
    Ok(())
}

fn row(outcome: &Outcome) -> [String; 7] {
    let share = |asked: &[Asked]| {
        let judged: Vec<bool> = asked.iter().filter_map(|asked| asked.right).collect();
        match judged.len() {
            0 => "-".into(),
            n => format!("{}/{n}", judged.iter().filter(|&&right| right).count()),
        }
    };
    let target = |text: &str, [before, after]: [f64; 2]| {
        format!("{} {} -> {}", one_line(text), percent(before), percent(after))
    };
    let of_true = outcome.target_true.as_deref().zip(outcome.p_true);
    [
        outcome.case_id.to_string(),
        one_line(&outcome.prompt),
        of_true.map_or_else(|| "-".into(), |(text, p)| target(text, p)),
        target(&outcome.target_new, outcome.p_new),
        outcome.verdict().to_owned(),
        share(&outcome.paraphrases),
        share(&outcome.neighbours),
    ]
}

/// A probability in percent; small ones keep two digits.
fn percent(p: f64) -> String {
    match 100.0 * p {
        p if p >= 10.0 || p == 0.0 => format!("{p:.0} %"),
        p if p >= 0.1 => format!("{p:.1} %"),
        p => format!("{p:.0e} %"),
    }
}

/// CounterFact's scores over the requests with a true target, on one line.
fn scores(out: &mut impl Write, outcomes: &[Outcome]) -> Result<()> {
    // Probabilities that have been rounded to 0 are compared as such; shares are of the prompts of each request.
    let nlls = |asked: &[Asked]| -> Vec<[f64; 2]> {
        asked.iter().filter_map(|asked| Some([-asked.p_new[1].ln(), -asked.p_true?[1].ln()])).collect()
    };
    let over = |of: &dyn Fn(&Outcome) -> Option<Success>| {
        mean(&outcomes.iter().filter_map(of).map(|success| success.success).collect::<Vec<_>>())
    };
    let shares = [
        ("ES", over(&|o| new_wins(&[[o.post_new, o.post_true?]]))),
        ("PS", over(&|o| new_wins(&nlls(&o.paraphrases)))),
        ("NS", over(&|o| true_holds(&nlls(&o.neighbours)))),
    ];
    let all: Option<Vec<f64>> = shares.iter().map(|(_, share)| *share).collect();
    let named = shares.into_iter().chain([("S", all.and_then(|all| harmonic_mean(&all)))]);
    let shown: Vec<String> =
        named.filter_map(|(name, share)| Some(format!("{name} {:.1}", 100.0 * share?))).collect();
    if !shown.is_empty() {
        writeln!(out, "{}", shown.join("  "))?;
    }
    Ok(())
}
