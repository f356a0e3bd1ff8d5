//! Optimising ROME's `v*` (MEMIT's `z`): which state at the subject's last token makes the model say the target?
//!
//! For a fact with contexts `j` (the prompt, bare and prefixed) and target tokens `t`, find the `delta [d]` that
//! minimises
//!
//! ```text
//! mean_j mean_t -ln p(t | context j, delta) + kl_factor KL(p(. | KL prompt, delta) || p(. | KL prompt))
//!     + weight_decay |delta| / |start|^2
//! ```
//!
//! when it is added to the residual stream leaving `layer` at the last token of the subject in each context (for ROME:
//! to the MLP's output, which has the same effect). Then `v* = start + delta`, where `start [d]` is the state in the
//! bare prompt. The divergence is taken at the subject's last token, as in the released code; the paper takes it at the
//! end of the prompt. The optimiser is Adam: no step is taken once the loss is below `loss_stop`, nor after the last
//! evaluation, and after a step `delta` is scaled down to the length `clamp |start|` where it is longer.
//!
//! Source: Meng et al. 2022 (arXiv 2202.05262, eq. 4) and 2023 (arXiv 2210.07229, eq. 16), in the form of their code.
//! What their code recomputes in every step is computed once here: all layers for the tokens before the subject's last,
//! and the layers up to the edited one. A step runs the rest, and computes logits only where they are read.
//!
//! Letters: `d` width, `m` rows at or after the last token of a subject, `V` vocabulary.

use std::ops::Range;

use locus_gpt2::internal::nll_of_row;
use locus_gpt2::{
    AdamW, Batch, Config, Gpt2, HookPoint, Moments, ParamSet, Scalar, Tape, axpy, compiled, log_softmax,
};
use ndarray::{Array2, ArrayViewMut2, Axis, s};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::fact::Fact;

/// Vectors that are optimised in one batch, mostly of one fact each: enough rows for fast matrix products, few enough that there is a
/// batch for every thread.
const GROUPS_AT_ONCE: usize = 4;

/// Constants of the optimisation of a target vector.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `lr` | 0.5 | above 0 | learning rate of Adam |
/// | `steps` | 20 | at least 1 | largest number of evaluations, one more than that of updates |
/// | `weight_decay` | 0.5 | at least 0 | weight of `delta`'s length |
/// | `kl_factor` | 0.0625 | at least 0 | weight of the divergence |
/// | `clamp` | 4 (MEMIT 0.75) | above 0 | largest length of `delta`, as a multiple of the start's |
/// | `loss_stop` | 0.05 | at least 0 | loss below which the optimisation ends |
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TargetOptimisation {
    /// Learning rate of Adam.
    pub lr: f64,
    /// Largest number of evaluations of the loss.
    pub steps: usize,
    /// Weight of `|delta| / |start|^2`.
    pub weight_decay: f64,
    /// Weight of the divergence at the KL prompt.
    pub kl_factor: f64,
    /// Largest length of `delta`, as a multiple of the start's.
    pub clamp: f64,
    /// Loss, in nats, below which the optimisation ends.
    pub loss_stop: f64,
}

impl Default for TargetOptimisation {
    fn default() -> Self {
        TargetOptimisation {
            lr: 0.5,
            steps: 20,
            weight_decay: 0.5,
            kl_factor: 0.0625,
            clamp: 4.0,
            loss_stop: 0.05,
        }
    }
}

impl TargetOptimisation {
    pub(crate) fn check(&self, editor: &'static str) -> Result<()> {
        let wrong = |name, value, expected| Err(Error::Parameter { editor, name, value, expected });
        for (name, value) in [("lr", self.lr), ("clamp", self.clamp)] {
            if !value.is_finite() || value <= 0.0 {
                return wrong(name, value, "a number above 0");
            }
        }
        if self.steps == 0 {
            return wrong("steps", 0.0, "at least 1");
        }
        for (name, value) in [
            ("weight_decay", self.weight_decay),
            ("kl_factor", self.kl_factor),
            ("loss_stop", self.loss_stop),
        ] {
            if !value.is_finite() || value < 0.0 {
                return wrong(name, value, "a number of at least 0");
            }
        }
        Ok(())
    }

    /// Optimises the target vector of every fact, independently of the others. `point` says which state of `layer` the
    /// start is: the MLP's output ([`HookPoint::MlpOut`], ROME) or the residual stream leaving the layer
    /// ([`HookPoint::ResidPost`], MEMIT). `progress` is called once per fact.
    ///
    /// # Errors
    /// When a fact does not fit the model.
    ///
    /// # Panics
    /// When the model has no such layer.
    pub fn optimise<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        layer: usize,
        point: HookPoint,
        facts: &[Fact],
        progress: &(dyn Fn() + Sync),
    ) -> Result<Vec<TargetVector<F>>> {
        let groups: Vec<&[Fact]> = facts.chunks(1).collect();
        F::run::<OptimiseJob>((self, model, (layer, point), groups.as_slice(), progress))
    }

    /// Optimises one vector for each group of facts about one subject: the loss is the mean over the facts of a group,
    /// the start the mean over their bare prompts. As [`TargetOptimisation::optimise`] otherwise, which is this for
    /// groups of one.
    pub(crate) fn optimise_groups<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        layer: usize,
        point: HookPoint,
        groups: &[&[Fact]],
    ) -> Result<Vec<TargetVector<F>>> {
        F::run::<OptimiseJob>((self, model, (layer, point), groups, &|| {}))
    }
}

type OptimiseInput<'a, F> =
    (&'a TargetOptimisation, &'a Gpt2<F>, (usize, HookPoint), &'a [&'a [Fact]], &'a (dyn Fn() + Sync));

compiled!(OptimiseJob<'a>: <F> OptimiseInput<'a, F> => Result<Vec<TargetVector<F>>>, optimise);

fn optimise<F: Scalar>(
    (constants, model, (layer, point), groups, progress): OptimiseInput<'_, F>,
) -> Result<Vec<TargetVector<F>>> {
    groups.iter().copied().flatten().try_for_each(|fact| fact.check(model.config()))?;
    let values: Vec<Vec<TargetVector<F>>> = groups
        .par_chunks(GROUPS_AT_ONCE)
        .map(|groups| {
            let values = Optimisation::new(model, layer, point, groups)?.run(constants);
            groups.iter().for_each(|_| progress());
            Ok(values)
        })
        .collect::<Result<_>>()?;
    Ok(values.into_iter().flatten().collect())
}

/// The vector `v* = start + delta` that the edited layer should produce at a fact's subject, and how it was found.
#[derive(Clone, Debug)]
pub struct TargetVector<F> {
    /// Keys of the layer's MLP (its activations) at the subject's last token in each context, `[contexts, f]`.
    pub keys: Array2<F>,
    /// State at the subject's last token of the bare prompt before the edit, `[d]`.
    pub start: Vec<F>,
    /// The vector that is added to the start, `[d]`.
    pub delta: Vec<F>,
    /// Loss at each evaluation, in nats.
    pub losses: Vec<f64>,
    /// Mean NLL per target token at each evaluation, in nats: the first term of the loss.
    pub nlls: Vec<f64>,
}

impl<F: Scalar> TargetVector<F> {
    /// Checks that the vector was found for a model of this shape.
    pub(crate) fn check(&self, config: &Config) -> Result<()> {
        let found = [self.start.len(), self.delta.len(), self.keys.ncols()];
        let expected = [config.n_embd, config.n_embd, config.d_mlp()];
        if found == expected && self.keys.nrows() > 0 {
            return Ok(());
        }
        Err(Error::Request(format!(
            "the target vector has a start, a delta and keys of widths {found:?}; the model has {expected:?}"
        )))
    }
}

/// Purpose for which a row of logits is read.
#[derive(Clone, Copy, Debug)]
enum LogitRow {
    /// The NLL of a target token, with its weight in the mean.
    Target { token: u32, weight: f64 },
    /// The distribution after the KL prompt's subject, which should not move.
    KlPrompt,
}

/// A few groups of facts, one vector each, with everything that does not change while their deltas do.
struct Optimisation<'a, F> {
    model: &'a Gpt2<F>,
    layer: usize,
    /// The rows from the subject's last token on: of each group the contexts of its facts with their targets, then the
    /// KL prompt.
    batch: Batch<F>,
    /// The residual stream leaving `layer`, `[m, d]`.
    resid: Array2<F>,
    /// Rows whose logits are read, ascending, group by group.
    rows: Vec<usize>,
    facts: Vec<LocatedFact<F>>,
}

/// The facts of one vector with the places of their rows in the batch.
struct LocatedFact<F> {
    /// Row of the subject's last token in each context and in the KL prompt: the first of each sequence.
    subject_lasts: Vec<usize>,
    /// Purpose of each row in the fact's part of [`Optimisation::rows`].
    reads: Vec<LogitRow>,
    /// Where that part begins.
    first_read: usize,
    /// Log probabilities after the KL prompt's subject before the edit, `[V]`; the first evaluation fills them in.
    before: Vec<f64>,
    keys: Array2<F>,
    start: Vec<F>,
}

impl<'a, F: Scalar> Optimisation<'a, F> {
    fn new(model: &'a Gpt2<F>, layer: usize, point: HookPoint, groups: &[&[Fact]]) -> Result<Self> {
        let mut sequences: Vec<Vec<u32>> = Vec::new();
        let mut starts = Vec::new();
        let mut group_of: Vec<Range<usize>> = Vec::new();
        for group in groups {
            let first = sequences.len();
            for fact in *group {
                for row in &fact.contexts {
                    sequences.push([&row.tokens, &fact.target[..fact.target.len() - 1]].concat());
                    starts.push(row.subject_last);
                }
            }
            // Nothing reads what follows the subject in the KL prompt, which the facts of a group share.
            let kl_prompt = &group[0].kl_prompt;
            sequences.push(kl_prompt.tokens[..=kl_prompt.subject_last].to_vec());
            starts.push(kl_prompt.subject_last);
            group_of.push(first..sequences.len());
        }
        let batch = model.suffixes(&sequences, &starts)?;
        let rows: Vec<Range<usize>> = batch.sequences().collect();
        let [mut keys, mut start, mut resid] = [const { None }; 3];
        let mut take = |at: usize, here: HookPoint, state: ArrayViewMut2<F>| {
            for (wanted, found) in
                [(HookPoint::MlpPost, &mut keys), (point, &mut start), (HookPoint::ResidPost, &mut resid)]
            {
                if (at, here) == (layer, wanted) {
                    *found = Some(state.to_owned());
                }
            }
        };
        model.run(&batch).until_layer(layer + 1).with_hooks(&mut take).resid();
        let visited = |state: Option<Array2<F>>| state.expect("every hook point is reached");
        let (keys, start, resid) = (visited(keys), visited(start), visited(resid));
        let mut read_rows = Vec::new();
        let located = groups
            .iter()
            .zip(group_of)
            .map(|(group, sequences)| {
                let subject_lasts: Vec<usize> =
                    sequences.clone().map(|sequence| rows[sequence].start).collect();
                let mut reads = Vec::new();
                let first_read = read_rows.len();
                let mut next = sequences.start;
                let mut bare = Vec::with_capacity(group.len());
                for fact in *group {
                    bare.push(start.row(rows[next].start));
                    let n = fact.target.len();
                    let weight = 1.0 / (group.len() * fact.contexts.len() * n) as f64;
                    for sequence in next..next + fact.contexts.len() {
                        // The last of its rows predicts the last target token.
                        read_rows.extend(rows[sequence].end - n..rows[sequence].end);
                        reads.extend(fact.target.iter().map(|&token| LogitRow::Target { token, weight }));
                    }
                    next += fact.contexts.len();
                }
                read_rows.push(*subject_lasts.last().expect("a fact has a KL prompt"));
                reads.push(LogitRow::KlPrompt);
                let start = match &bare[..] {
                    [start] => start.to_vec(),
                    bare => {
                        let sum = |i: usize| bare.iter().map(|start| start[i].as_f64()).sum::<f64>();
                        (0..bare[0].len()).map(|i| F::from_f64(sum(i) / bare.len() as f64)).collect()
                    }
                };
                LocatedFact {
                    before: Vec::new(),
                    keys: keys.select(Axis(0), &subject_lasts[..subject_lasts.len() - 1]),
                    start,
                    subject_lasts,
                    reads,
                    first_read,
                }
            })
            .collect();
        Ok(Optimisation { model, layer, batch, resid, rows: read_rows, facts: located })
    }

    fn run(mut self, constants: &TargetOptimisation) -> Vec<TargetVector<F>> {
        let d = self.model.config().n_embd;
        let adam = AdamW { weight_decay: 0.0, ..AdamW::new(constants.lr) };
        let mut moments: Vec<Moments<F>> = self.facts.iter().map(|_| Moments::zeros(d)).collect();
        let mut values: Vec<TargetVector<F>> = self
            .facts
            .iter()
            .map(|fact| TargetVector {
                keys: fact.keys.clone(),
                start: fact.start.clone(),
                delta: vec![F::zero(); d],
                losses: Vec::new(),
                nlls: Vec::new(),
            })
            .collect();
        let mut open: Vec<usize> = (0..self.facts.len()).collect();
        for step in 1..=constants.steps {
            let mut resid = self.resid.clone();
            for (fact, value) in self.facts.iter().zip(&values) {
                for &row in &fact.subject_lasts {
                    let mut row = resid.row_mut(row);
                    axpy(F::one(), &value.delta, row.as_slice_mut().expect("rows are contiguous"));
                }
            }
            let tape = self.tape(resid);
            let mut d_hidden = Array2::zeros(tape.hidden.dim());
            open.retain(|&i| {
                let norm = length(&values[i].delta);
                let start = length(&values[i].start);
                let (nll, divergence) = self.losses(i, constants, &tape.hidden, &mut d_hidden);
                let loss =
                    nll + constants.kl_factor * divergence + constants.weight_decay * norm / (start * start);
                values[i].losses.push(loss);
                values[i].nlls.push(nll);
                loss >= constants.loss_stop
            });
            if open.is_empty() || step == constants.steps {
                break;
            }
            let mut none = ParamSet::zeros(self.model.config(), []);
            let d_resid = self.model.backward(&tape, d_hidden.view(), &mut none, &mut ());
            for &i in &open {
                let TargetVector { start, delta, .. } = &mut values[i];
                let mut gradient = vec![F::zero(); d];
                for &row in &self.facts[i].subject_lasts {
                    let row = d_resid.row(row);
                    axpy(F::one(), row.to_slice().expect("rows are contiguous"), &mut gradient);
                }
                let (norm, radius) = (length(delta), length(start));
                if norm > 0.0 {
                    axpy(
                        F::from_f64(constants.weight_decay / (norm * radius * radius)),
                        delta,
                        &mut gradient,
                    );
                }
                adam.step(step, delta, &gradient, &mut moments[i]);
                let (norm, longest) = (length(delta), constants.clamp * radius);
                if norm > longest {
                    delta.iter_mut().for_each(|x| *x *= F::from_f64(longest / norm));
                }
            }
        }
        values
    }

    /// Runs the layers above the edited one; the last of them computes only the rows that are read.
    fn tape(&self, resid: Array2<F>) -> Tape<F> {
        self.model.run(&self.batch).from_layer(self.layer + 1, resid).reading(&self.rows).tape()
    }

    /// NLL and divergence of a fact, in nats; writes the gradient of their weighted sum to its rows of
    /// `d_hidden [reads, d]`.
    fn losses(
        &mut self,
        fact: usize,
        constants: &TargetOptimisation,
        hidden: &Array2<F>,
        d_hidden: &mut Array2<F>,
    ) -> (f64, f64) {
        let LocatedFact { reads, first_read, before, .. } = &mut self.facts[fact];
        let rows = *first_read..*first_read + reads.len();
        let read = hidden.slice(s![rows.clone(), ..]);
        let mut logits = self.model.logits(read);
        if before.is_empty() {
            // The first evaluation is of the model as it was.
            *before = log_softmax(logits.row(reads.len() - 1).to_slice().expect("rows are contiguous"));
        }
        let before = &*before;
        let parts: Vec<(f64, f64)> = logits
            .axis_iter_mut(Axis(0))
            .into_par_iter()
            .zip(&*reads)
            .map(|(mut row, read)| match *read {
                LogitRow::Target { token, weight } => {
                    let row = row.as_slice_mut().expect("rows are contiguous");
                    let nll = nll_of_row(row, token);
                    let scale = F::from_f64(weight);
                    row.iter_mut().for_each(|x| *x *= scale);
                    (weight * nll, 0.0)
                }
                LogitRow::KlPrompt => {
                    let log_p = log_softmax(row.as_slice().expect("rows are contiguous"));
                    let divergence: f64 =
                        log_p.iter().zip(before).map(|(log_p, before)| log_p.exp() * (log_p - before)).sum();
                    // d KL(p || q) / d logit_i = p_i (ln p_i - ln q_i - KL)
                    for ((logit, log_p), before) in row.iter_mut().zip(&log_p).zip(before) {
                        let slope = log_p.exp() * (log_p - before - divergence);
                        *logit = F::from_f64(constants.kl_factor * slope);
                    }
                    (0.0, divergence)
                }
            })
            .collect();
        let (nll, divergence) =
            parts.into_iter().fold((0.0, 0.0), |(nll, kl), (more, divergence)| (nll + more, kl + divergence));
        let mut no_gradients = ParamSet::zeros(self.model.config(), []);
        let d_read = self.model.logits_backward(read, logits.view(), &mut no_gradients);
        d_hidden.slice_mut(s![rows, ..]).assign(&d_read);
        (nll, divergence)
    }
}

/// Euclidean length.
pub(crate) fn length<F: Scalar>(x: &[F]) -> f64 {
    x.iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>().sqrt()
}
