//! A model looked at on one prompt (`locus inspect`): what comes next, what the residual stream says layer by layer,
//! which components the answer comes from, and where heads look.
//!
//! Logit lens and attribution are those of [`locus_gpt2::lens`], with the sources there. Dimension letters: `n` tokens
//! of the prompt, `L` layers.

use anyhow::{Result, ensure};
use locus_gpt2::lens::{
    ATTRIBUTION_POINTS, Component, centred_logit_attribution, direct_logit_attribution, logit_lens,
};
use locus_gpt2::ndarray::{ArrayView1, ArrayViewMut2, Axis};
use locus_gpt2::{Batch, Gpt2, Hook, HookPoint, Scalar, compiled, log_softmax};
use serde::Serialize;

/// Rows that go through the unembedding together, so that their logits at all layers fit the memory.
const ROWS: usize = 16;
/// Number of heads whose patterns are kept unless the question names heads.
const DEFAULT_HEADS: usize = 4;

/// What is asked of a model.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Token ids of the prompt.
    pub prompt: &'a [u32],
    /// The token whose logit is attributed; the likeliest when there is none.
    pub target: Option<u32>,
    /// The token that it is compared with; the mean logit of the vocabulary when there is none.
    pub against: Option<u32>,
    /// Heads whose patterns are wanted, by layer and index; the four that add most to the logit difference, of either
    /// sign, when there are none.
    pub heads: Option<&'a [(usize, usize)]>,
    /// Number of continuations.
    pub top: usize,
    /// Text of a token.
    pub text: &'a dyn Fn(u32) -> String,
}

/// A token and how likely a row's logits make it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Token id.
    pub id: u32,
    /// Text, leading space included.
    pub text: String,
    /// Logit.
    pub logit: f64,
    /// Probability, in [0, 1].
    pub probability: f64,
}

/// The logit lens at one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LensLayer {
    /// Layer whose residual stream is read as it leaves.
    pub layer: usize,
    /// Probability of the target at the last position.
    pub probability: f64,
    /// Number of tokens that are at least as likely as the target at the last position, itself included.
    pub rank: usize,
    /// Logit difference of the question at the last position.
    pub logit_difference: f64,
    /// Likeliest token at each position, `[n]`.
    pub likeliest: Vec<Candidate>,
}

/// ComponentKind of a component that writes to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentKind {
    /// Embedding of the last token.
    TokenEmbedding,
    /// Embedding of the last position.
    PositionEmbedding,
    /// One head, without the output bias.
    Head,
    /// Output bias of a layer's attention.
    AttnBias,
    /// MLP of a layer.
    Mlp,
    /// Bias of the final LayerNorm.
    FinalNormBias,
}

/// What one component adds to the logit difference.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// ComponentKind of the component.
    pub kind: ComponentKind,
    /// Layer, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// Index of a head.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<usize>,
    /// Part of the logit difference.
    pub value: f64,
}

/// The attention pattern of a head.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AttentionPattern {
    /// Layer.
    pub layer: usize,
    /// Index of the head.
    pub head: usize,
    /// Weights by query and key, `[n, n]`; zero for keys behind the query.
    pub weights: Vec<Vec<f64>>,
}

/// Answers to a [`Question`].
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inspection {
    /// Likeliest continuations, from the likeliest down; equal ones in order of token id.
    pub next: Vec<Candidate>,
    /// The target at the end of the prompt.
    pub target: Candidate,
    /// The token that the target is compared with, at the end of the prompt.
    pub against: Option<Candidate>,
    /// Logit of the target minus that of the other token, or minus the mean logit.
    pub logit_difference: f64,
    /// Logit lens by layer, `[L]`.
    pub lens: Vec<LensLayer>,
    /// Parts of the logit difference, which sum to it, in the order of the forward pass.
    pub attribution: Vec<Part>,
    /// Patterns of the heads asked for.
    pub attention: Vec<AttentionPattern>,
}

/// Looks at a model on a prompt.
///
/// # Errors
/// When the prompt does not fit the model, or a logit is not finite.
///
/// # Panics
/// When a token or a head is beyond the model.
pub fn inspect<F: Scalar>(model: &Gpt2<F>, question: &Question) -> Result<Inspection> {
    F::run::<InspectJob>((model, question))
}

compiled!(
    InspectJob<'a>: <F> (&'a Gpt2<F>, &'a Question<'a>) => Result<Inspection>,
    |(model, question)| looked_at(model, question)
);

/// Logits of a row as numbers of the report.
struct Row<'a> {
    logits: Vec<f64>,
    log_p: Vec<f64>,
    text: &'a dyn Fn(u32) -> String,
}

impl<'a> Row<'a> {
    fn new<F: Scalar>(logits: ArrayView1<F>, text: &'a dyn Fn(u32) -> String) -> Result<Self> {
        ensure!(
            logits.iter().all(|x| x.as_f64().is_finite()),
            "a logit is not finite; the model's states are beyond the number type's range"
        );
        let log_p = log_softmax(logits.as_slice().expect("logits of a row are contiguous"));
        Ok(Row { logits: logits.iter().map(|x| x.as_f64()).collect(), log_p, text })
    }

    fn candidate(&self, id: u32) -> Candidate {
        let (logit, probability) = (self.logits[id as usize], self.log_p[id as usize].exp());
        Candidate { id, text: (self.text)(id), logit, probability }
    }

    /// The first of the likeliest.
    fn likeliest(&self) -> u32 {
        let best = (0..self.logits.len())
            .reduce(|best, i| if self.logits[i] > self.logits[best] { i } else { best });
        best.expect("a vocabulary has tokens") as u32
    }

    fn top(&self, n: usize) -> Vec<Candidate> {
        let mut order: Vec<usize> = (0..self.logits.len()).collect();
        order.sort_by(|&a, &b| self.logits[b].total_cmp(&self.logits[a]));
        order.into_iter().take(n).map(|id| self.candidate(id as u32)).collect()
    }

    fn difference(&self, target: u32, against: Option<u32>) -> f64 {
        let other = match against {
            Some(other) => self.logits[other as usize],
            None => self.logits.iter().sum::<f64>() / self.logits.len() as f64,
        };
        self.logits[target as usize] - other
    }

    fn rank(&self, target: u32) -> usize {
        self.logits.iter().filter(|&&logit| logit >= self.logits[target as usize]).count()
    }
}

fn looked_at<F: Scalar>(model: &Gpt2<F>, question: &Question) -> Result<Inspection> {
    let Question { prompt, against, text, .. } = *question;
    let batch = Batch::new(model.config(), &[prompt])?;
    let cache = model.run(&batch).cache(ATTRIBUTION_POINTS);
    let last = batch.n_rows() - 1;

    let logits = logit_lens(model, &cache, &[last]);
    let at_end: Vec<Row> =
        logits.axis_iter(Axis(0)).map(|logits| Row::new(logits.row(0), text)).collect::<Result<_>>()?;
    let end = at_end.last().expect("a model has layers");
    let target = question.target.unwrap_or_else(|| end.likeliest());
    let layer = |(layer, row): (usize, &Row)| LensLayer {
        layer,
        probability: row.log_p[target as usize].exp(),
        rank: row.rank(target),
        logit_difference: row.difference(target, against),
        likeliest: Vec::with_capacity(prompt.len()),
    };
    let mut lens: Vec<LensLayer> = at_end.iter().enumerate().map(layer).collect();
    let rows: Vec<usize> = (0..last).collect();
    for rows in rows.chunks(ROWS) {
        let logits = logit_lens(model, &cache, rows);
        for (layer, logits) in lens.iter_mut().zip(logits.axis_iter(Axis(0))) {
            for logits in logits.rows() {
                let row = Row::new(logits, text)?;
                layer.likeliest.push(row.candidate(row.likeliest()));
            }
        }
    }
    for (layer, row) in lens.iter_mut().zip(&at_end) {
        layer.likeliest.push(row.candidate(row.likeliest()));
    }

    let parts = match against {
        Some(other) => direct_logit_attribution(model, &cache, last, [target, other]),
        None => centred_logit_attribution(model, &cache, last, target),
    };
    let attribution: Vec<Part> = parts.into_iter().map(part).collect();
    let chosen;
    let heads: &[(usize, usize)] = match question.heads {
        Some(heads) => heads,
        None => {
            chosen = largest_heads(&attribution);
            &chosen[..]
        }
    };
    Ok(Inspection {
        next: end.top(question.top),
        target: end.candidate(target),
        against: against.map(|other| end.candidate(other)),
        logit_difference: end.difference(target, against),
        lens,
        attribution,
        attention: patterns(model, &batch, heads),
    })
}

fn part((component, value): (Component, f64)) -> Part {
    let (kind, layer, head) = match component {
        Component::TokenEmbedding => (ComponentKind::TokenEmbedding, None, None),
        Component::PositionEmbedding => (ComponentKind::PositionEmbedding, None, None),
        Component::Head(layer, head) => (ComponentKind::Head, Some(layer), Some(head)),
        Component::AttnBias(layer) => (ComponentKind::AttnBias, Some(layer), None),
        Component::Mlp(layer) => (ComponentKind::Mlp, Some(layer), None),
        Component::FinalNormBias => (ComponentKind::FinalNormBias, None, None),
    };
    Part { kind, layer, head, value }
}

/// The heads with the largest parts of either sign, from the largest down.
fn largest_heads(parts: &[Part]) -> Vec<(usize, usize)> {
    let mut heads: Vec<(f64, (usize, usize))> =
        parts.iter().filter_map(|part| Some((part.value.abs(), (part.layer?, part.head?)))).collect();
    heads.sort_by(|a, b| b.0.total_cmp(&a.0));
    heads.into_iter().take(DEFAULT_HEADS).map(|(_, head)| head).collect()
}

/// The patterns of some heads, in the order asked for. Only these are kept: all heads' patterns of a long prompt would
/// take more memory than the model.
fn patterns<F: Scalar>(model: &Gpt2<F>, batch: &Batch<F>, heads: &[(usize, usize)]) -> Vec<AttentionPattern> {
    let mut kept = Patterns { heads, patterns: vec![Vec::new(); heads.len()] };
    let until = heads.iter().map(|(layer, _)| layer + 1).max().unwrap_or(0);
    model.run(batch).until_layer(until).with_hooks(&mut kept).resid();
    let named = |(&(layer, head), weights)| AttentionPattern { layer, head, weights };
    heads.iter().zip(kept.patterns).map(named).collect()
}

struct Patterns<'a> {
    heads: &'a [(usize, usize)],
    patterns: Vec<Vec<Vec<f64>>>,
}

impl<F: Scalar> Hook<F> for Patterns<'_> {
    fn call(&mut self, _: usize, _: HookPoint, _: ArrayViewMut2<F>) {}

    fn wants_pattern(&self, layer: usize) -> bool {
        self.heads.iter().any(|(wanted, _)| *wanted == layer)
    }

    fn pattern(&mut self, layer: usize, head: usize, _: usize, pattern: ArrayViewMut2<F>) {
        for (wanted, kept) in self.heads.iter().zip(&mut self.patterns) {
            if *wanted == (layer, head) {
                *kept =
                    pattern.rows().into_iter().map(|row| row.iter().map(|x| x.as_f64()).collect()).collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use locus_gpt2::Config;
    use serde_json::Value;

    use super::*;

    fn golden_folder() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/golden")
    }

    fn tiny<F: Scalar>(weights: &str) -> Gpt2<F> {
        let folder = golden_folder().join("tiny");
        let config = Config::read(&folder.join("config.json")).unwrap();
        Gpt2::read(&folder.join(weights), &config).unwrap()
    }

    /// Checks every number of a value against that of another, by the relative error.
    fn assert_equal(place: &str, found: &Value, expected: &Value, tolerance: f64) {
        match (found, expected) {
            (Value::Array(a), Value::Array(b)) => {
                assert_eq!(a.len(), b.len(), "{place}");
                a.iter().zip(b).enumerate().for_each(|(i, (a, b))| {
                    assert_equal(&format!("{place}[{i}]"), a, b, tolerance);
                });
            }
            (Value::Object(a), Value::Object(b)) => {
                assert!(a.keys().eq(b.keys()), "{place}: {:?}, {:?}", a.keys(), b.keys());
                a.iter().for_each(|(key, a)| assert_equal(&format!("{place}.{key}"), a, &b[key], tolerance));
            }
            (Value::Number(a), Value::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                // Sums of numbers of order 1 that cancel keep the rounding of their terms.
                assert!((a - b).abs() <= tolerance * b.abs().max(1e-3), "{place}: {a} and {b}");
            }
            _ => assert_eq!(found, expected, "{place}"),
        }
    }

    fn check<F: Scalar>(weights: &str, tolerance: f64) {
        let golden: Value =
            serde_json::from_str(&locus_files::read_to_string(golden_folder().join("lens.json")).unwrap())
                .unwrap();
        let model = tiny::<F>(weights);
        let token = |value: &Value| value.as_u64().map(|token| token as u32);
        for case in golden.as_array().unwrap() {
            let prompt: Vec<u32> = case["prompt"].as_array().unwrap().iter().filter_map(token).collect();
            let head =
                |head: &Value| (head[0].as_u64().unwrap() as usize, head[1].as_u64().unwrap() as usize);
            let heads: Option<Vec<(usize, usize)>> =
                case["heads"].as_array().map(|heads| heads.iter().map(head).collect());
            let question = Question {
                prompt: &prompt,
                target: token(&case["target"]),
                against: token(&case["against"]),
                heads: heads.as_deref(),
                top: 5,
                text: &|token| format!("<{token}>"),
            };
            let found = serde_json::to_value(inspect(&model, &question).unwrap()).unwrap();
            assert_equal("inspection", &found, &case["expected"], tolerance);
        }
    }

    #[test]
    fn every_number_equals_the_independent_script() {
        check::<f64>("model_f64.safetensors", 1e-9);
        // Wider where single precision cancels: parts of 1e-3 beside logits of 1.
        check::<f32>("model.safetensors", 2e-3);
    }

    #[test]
    fn a_model_beyond_its_range_has_no_inspection() {
        let mut model = tiny::<f32>("model.safetensors");
        model.get_mut(locus_gpt2::ParamId::FinalNormBias)[0] = f32::INFINITY;
        let question = Question {
            prompt: &[1],
            target: None,
            against: None,
            heads: None,
            top: 1,
            text: &|_| String::new(),
        };
        let refused = inspect(&model, &question).unwrap_err().to_string();
        assert!(refused.contains("not finite"), "{refused}");
    }
}
