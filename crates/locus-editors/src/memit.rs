//! MEMIT: many facts at once, spread over several layers.
//!
//! For every fact, [`TargetOptimisation`] finds a residual stream `z` leaving the last of `layers` that makes the model
//! say the target. Then the layers are edited in turn, each on the model as edited so far: with the keys `K [f, n]`
//! (half the bare prompt's, half the mean over the prefixed ones), the targets `Z [d, n]`, the residual streams
//! `H [d, n]` of the bare prompts leaving the last of `layers`, and `R = (Z - H) / (number of layers left)`:
//!
//! ```text
//! W <- W + U R^T,    U = C^-1 K (lambda + K^T C^-1 K)^-1
//! ```
//!
//! [`memit_update`](crate::memit_update) computes `U`. With `null_space` it is
//! [`NullSpace::alphaedit_update`](crate::NullSpace::alphaedit_update), which projects the change onto directions that
//! keys seldom use (AlphaEdit). Edits made one after the other ([`Editor::edit_after`]) hand it the keys of the
//! earlier ones, `K_p` of the paper, whose answers are then to stay.
//!
//! With `lambda = 0` the answers to the new keys are exactly those asked for: EMMET, without the damping of its code,
//! which would be a `lambda`.
//!
//! Facts about one subject have nearly equal keys, and equal keys can answer with one value only: the mean of those
//! that were asked for, which serves none of the facts. With `merge`, facts that share a subject share a value: one
//! search over the prompts and targets of them all (the loss is their mean), written for the mean of their keys. Without
//! it, [`Memit::similar_keys`] tells which facts are concerned.
//!
//! Sources: Meng et al. 2023 (arXiv 2210.07229, eq. 14 for the update) and its code; Fang et al. 2024 (arXiv
//! 2410.02355) for AlphaEdit; Gupta et al. 2024 (arXiv 2403.14236) for EMMET; Dong et al. 2025 (arXiv 2502.07322) for
//! `merge`, MEMIT-Merge.
//!
//! Letters: `n` facts, `d` width, `f` MLP width.

use std::collections::BTreeMap;
use std::sync::Arc;

use locus_gpt2::{BlockParam, Checkpoint, Config, Gpt2, HookPoint, ParamId, ParamMask, Scalar, compiled};
use ndarray::{Array2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::editor::{Edit, EditInput, Editor, Report, check_mask};
use crate::error::{Error, Result};
use crate::fact::{Context, Fact};
use crate::insertion::{NullSpace, memit_update};
use crate::memory::EditMemory;
use crate::optimisation::{TargetOptimisation, TargetVector};
use crate::patch::Patch;
use crate::states::at_subjects;
use crate::statistics::{KeyCovariance, KeyStatistics};

/// Constants of MEMIT.
///
/// | name | default | range | purpose |
/// |---|---|---|---|
/// | `layers` | 3, 4, 5 | layers of the model, ascending | the MLPs that are edited, counted from 0 |
/// | `lambda` | 2000 | at least 0 | weight of `C` against the new keys (MEMIT's `mom2_update_weight`); 0 is EMMET |
/// | `ridge` | 1e-5 | at least 0 | added to the diagonal of `C`, as a multiple of its mean |
/// | `null_space` | none | above 0 | AlphaEdit: eigenvalue of `C` from which a direction counts as used |
/// | `l2` | 10 | at least 0 | AlphaEdit: added to the diagonal of the projected keys' Gram matrix |
/// | `merge` | false | | MEMIT-Merge: one target vector for all facts about a subject |
/// | `optimisation` | clamp 0.75 | | [`TargetOptimisation`] |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Memit {
    /// The MLPs that are edited, counted from 0.
    pub layers: Vec<usize>,
    /// Weight of `C` against the new keys (`mom2_update_weight` in MEMIT's code).
    pub lambda: f64,
    /// Added to the diagonal of `C`, as a multiple of its mean.
    pub ridge: f64,
    /// AlphaEdit: eigenvalue of `C` from which a direction counts as used. Without it the editor is MEMIT.
    pub null_space: Option<f64>,
    /// AlphaEdit: added to the diagonal of the projected keys' Gram matrix.
    pub l2: f64,
    /// MEMIT-Merge: one target vector for all facts about a subject.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub merge: bool,
    /// Constants of the optimisation that finds the targets.
    pub optimisation: TargetOptimisation,
}

impl Default for Memit {
    /// For GPT-2 small; [`Hparams`](crate::Hparams) has those of other models.
    fn default() -> Self {
        Memit {
            layers: vec![3, 4, 5],
            lambda: 2000.0,
            ridge: 1e-5,
            null_space: None,
            l2: 10.0,
            merge: false,
            optimisation: TargetOptimisation { clamp: 0.75, ..Default::default() },
        }
    }
}

impl Memit {
    /// Name of the method that these constants make: `alpha-edit` with a null space, `emmet` with a `lambda` of 0, else
    /// `memit`.
    pub fn name(&self) -> &'static str {
        match (self.null_space, self.lambda) {
            (Some(_), _) => "alpha-edit",
            (None, 0.0) => "emmet",
            (None, _) => "memit",
        }
    }

    /// Checks every constant against the model.
    ///
    /// # Errors
    /// When one is out of its range.
    pub fn check(&self, config: &Config) -> Result<()> {
        const NAME: &str = "memit";
        let wrong = |name, value, expected| Err(Error::Parameter { editor: NAME, name, value, expected });
        if self.layers.is_empty() || !self.layers.is_sorted_by(|a, b| a < b) {
            return wrong("layers", self.layers.len() as f64, "one or more, ascending");
        }
        if let Some(&layer) = self.layers.iter().find(|&&layer| layer >= config.n_layer) {
            return Err(Error::Layer { layer, layers: config.n_layer });
        }
        for (name, value) in [("lambda", self.lambda), ("ridge", self.ridge), ("l2", self.l2)] {
            if !value.is_finite() || value < 0.0 {
                return wrong(name, value, "a number of at least 0");
            }
        }
        if let Some(threshold) = self.null_space.filter(|x| !x.is_finite() || *x <= 0.0) {
            return wrong("null_space", threshold, "a number above 0");
        }
        self.optimisation.check(NAME)
    }

    /// Pairs of facts whose keys have a cosine above `threshold` on one of the edited layers, before any edit: what is
    /// written for one of them is nearly written for the other. With [`Memit::merge`], pairs about one subject are left
    /// out, as they share their value.
    ///
    /// # Errors
    /// When a constant is out of its range or a fact does not fit the model.
    pub fn similar_keys<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        facts: &[Fact],
        threshold: f64,
    ) -> Result<Vec<SimilarKeys>> {
        F::run::<SimilarJob>((self, model, facts, threshold))
    }

    /// Makes an editor, with statistics of the layers' keys over a text.
    ///
    /// # Errors
    /// When a layer is not in the model, the text is too short or AlphaEdit's split of key space fails.
    pub fn fit<F: Scalar>(self, checkpoint: &Checkpoint<F>, text: &str) -> Result<MemitEditor> {
        let statistics = KeyStatistics::from_text(checkpoint, &self.layers, text)?;
        let covariances = statistics.covariances(self.ridge)?;
        self.with(covariances)
    }

    /// Makes an editor from statistics of its layers' keys, by layer.
    ///
    /// # Errors
    /// When the statistics of a layer are missing, or AlphaEdit's split of key space fails.
    pub fn with(self, covariances: BTreeMap<usize, Arc<KeyCovariance>>) -> Result<MemitEditor> {
        let mut layers = Vec::new();
        for &layer in &self.layers {
            let covariance = covariances.get(&layer).ok_or_else(|| {
                Error::Statistics(format!("have no layer {layer}; expected {:?}", self.layers))
            })?;
            let null_space = self
                .null_space
                .map(|threshold| NullSpace::new(covariance.matrix(), threshold))
                .transpose()?;
            layers.push((layer, covariance.clone(), null_space));
        }
        Ok(MemitEditor { constants: self, layers })
    }
}

/// MEMIT with the key statistics of its layers.
#[derive(Clone, Debug)]
pub struct MemitEditor {
    constants: Memit,
    layers: Vec<(usize, Arc<KeyCovariance>, Option<NullSpace>)>,
}

impl<F: Scalar> Editor<F> for MemitEditor {
    fn name(&self) -> &'static str {
        self.constants.name()
    }

    fn edit(&self, model: &Gpt2<F>, facts: &[Fact], mask: Option<&ParamMask>) -> Result<Edit<F>> {
        self.edit_after(&mut EditMemory::new(), model, facts, mask)
    }

    fn edit_after(
        &self,
        memory: &mut EditMemory,
        model: &Gpt2<F>,
        facts: &[Fact],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<F>> {
        check_mask(mask, model.config())?;
        if self.constants.merge {
            F::run::<MergeJob>(((self, model, facts, mask), memory))
        } else {
            self.insert_after(memory, model, facts, &self.target_vectors(model, facts)?, mask)
        }
    }
}

type MergeInput<'a, F> = (EditInput<'a, MemitEditor, F>, &'a mut EditMemory);

compiled!(MergeJob<'a>: <F> MergeInput<'a, F> => Result<Edit<F>>, edit_merged);

fn edit_merged<F: Scalar>(((editor, model, facts, mask), memory): MergeInput<'_, F>) -> Result<Edit<F>> {
    editor.constants.check(model.config())?;
    // Subjects in the order of their first facts.
    let mut subjects: Vec<Vec<Fact>> = Vec::new();
    for fact in facts {
        match subjects.iter_mut().find(|group| group[0].shares_subject(fact)) {
            Some(group) if group.iter().any(|other| other.contradicts(fact)) => {
                let why = "two facts ask for different targets after one prompt; such facts cannot be merged";
                return Err(Error::Request(why.into()));
            }
            Some(group) => group.push(fact.clone()),
            None => subjects.push(vec![fact.clone()]),
        }
    }
    let groups: Vec<&[Fact]> = subjects.iter().map(Vec::as_slice).collect();
    let last = *editor.constants.layers.last().expect("checked");
    let optimisation = &editor.constants.optimisation;
    let targets = optimisation.optimise_groups(model, last, HookPoint::ResidPost, &groups)?;
    insert((editor, model, groups.as_slice(), targets.as_slice(), mask, memory))
}

/// Two facts whose keys an editor can hardly tell apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SimilarKeys {
    /// Positions of the two facts in the list, the smaller one first.
    pub facts: [usize; 2],
    /// Cosine of their keys, on the edited layer where it is largest.
    pub cosine: f64,
}

impl MemitEditor {
    /// Target vectors (MEMIT's `z`) of facts. No mask enters them, so edits inside different masks can share them.
    ///
    /// # Errors
    /// When a constant is out of its range or a fact does not fit the model.
    pub fn target_vectors<F: Scalar>(&self, model: &Gpt2<F>, facts: &[Fact]) -> Result<Vec<TargetVector<F>>> {
        self.constants.check(model.config())?;
        let last = *self.constants.layers.last().expect("checked");
        self.constants.optimisation.optimise(model, last, HookPoint::ResidPost, facts, &|| {})
    }

    /// Writes target vectors that [`MemitEditor::target_vectors`] found for these facts and this model.
    ///
    /// # Errors
    /// When there is no fact, targets or mask belong to another model, the statistics are of another width, keys are
    /// linearly dependent or the edit would damage the model.
    pub fn insert<F: Scalar>(
        &self,
        model: &Gpt2<F>,
        facts: &[Fact],
        targets: &[TargetVector<F>],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<F>> {
        self.insert_after(&mut EditMemory::new(), model, facts, targets, mask)
    }

    /// As [`MemitEditor::insert`], into a model that holds the edits of `memory`: AlphaEdit leaves the answers to their
    /// keys alone, and adds its own keys when the edit is made.
    ///
    /// # Errors
    /// As [`MemitEditor::insert`], and when the memory is of a model of another width.
    pub fn insert_after<F: Scalar>(
        &self,
        memory: &mut EditMemory,
        model: &Gpt2<F>,
        facts: &[Fact],
        targets: &[TargetVector<F>],
        mask: Option<&ParamMask>,
    ) -> Result<Edit<F>> {
        let groups: Vec<&[Fact]> = facts.chunks(1).collect();
        F::run::<InsertJob>((self, model, groups.as_slice(), targets, mask, memory))
    }
}

type SimilarInput<'a, F> = (&'a Memit, &'a Gpt2<F>, &'a [Fact], f64);

compiled!(SimilarJob<'a>: <F> SimilarInput<'a, F> => Result<Vec<SimilarKeys>>, similar_keys);

fn similar_keys<F: Scalar>(
    (constants, model, facts, threshold): SimilarInput<'_, F>,
) -> Result<Vec<SimilarKeys>> {
    /// Facts whose cosines with all later ones are held at the same time.
    const ROWS: usize = 256;
    let Memit { layers, merge, .. } = constants;
    constants.check(model.config())?;
    facts.iter().try_for_each(|fact| fact.check(model.config()))?;
    let groups: Vec<&[Fact]> = facts.chunks(1).collect();
    let mut found: BTreeMap<[usize; 2], f64> = BTreeMap::new();
    for &layer in layers.iter().filter(|_| facts.len() > 1) {
        let mut keys = mean_keys(model, layer, &groups)?.reversed_axes();
        for mut key in keys.rows_mut() {
            let length = key.dot(&key).sqrt();
            key.mapv_inplace(|x| x / length);
        }
        for first in (0..facts.len()).step_by(ROWS) {
            let rows = keys.slice(s![first..facts.len().min(first + ROWS), ..]);
            let cosines = rows.dot(&keys.slice(s![first.., ..]).t());
            for ((row, column), &cosine) in cosines.indexed_iter() {
                let pair = [first + row, first + column];
                let merged = *merge && facts[pair[0]].shares_subject(&facts[pair[1]]);
                if pair[0] < pair[1] && cosine > threshold && !merged {
                    let largest = found.entry(pair).or_insert(cosine);
                    *largest = largest.max(cosine);
                }
            }
        }
    }
    Ok(found.into_iter().map(|(facts, cosine)| SimilarKeys { facts, cosine: cosine.min(1.0) }).collect())
}

/// Facts in groups, each of which has one target vector.
type InsertInput<'a, F> = (
    &'a MemitEditor,
    &'a Gpt2<F>,
    &'a [&'a [Fact]],
    &'a [TargetVector<F>],
    Option<&'a ParamMask>,
    &'a mut EditMemory,
);

compiled!(InsertJob<'a>: <F> InsertInput<'a, F> => Result<Edit<F>>, insert);

fn insert<F: Scalar>((editor, model, groups, targets, mask, memory): InsertInput<'_, F>) -> Result<Edit<F>> {
    let config = model.config();
    editor.constants.check(config)?;
    check_mask(mask, config)?;
    if groups.is_empty() {
        return Err(Error::Request("there is no fact to write; expected at least one".into()));
    }
    if targets.len() != groups.len() {
        let (has, wants) = (targets.len(), groups.len());
        return Err(Error::Request(format!(
            "there are {has} target vectors for {wants} facts; expected one for each"
        )));
    }
    targets.iter().try_for_each(|target| target.check(config))?;
    let last = *editor.constants.layers.last().expect("checked");
    let mut wanted = Array2::<f64>::zeros((groups.len(), config.n_embd));
    for (mut z, target) in wanted.rows_mut().into_iter().zip(targets) {
        let sums =
            target.start.iter().zip(&target.delta).map(|(start, delta)| start.as_f64() + delta.as_f64());
        z.iter_mut().zip(sums).for_each(|(z, sum)| *z = sum);
    }
    let facts: Vec<Fact> = groups.concat();
    let bare: Vec<&Context> = facts.iter().map(|fact| &fact.contexts[0]).collect();
    let missing = |model: &Gpt2<F>| -> Result<Array2<f64>> {
        let streams = at_subjects(model, bare.iter().copied(), last, HookPoint::ResidPost)?;
        let streams = streams.mapv(|x| x.as_f64());
        if groups.len() == facts.len() {
            return Ok(&wanted - &streams);
        }
        let mut left = wanted.clone();
        let mut first = 0;
        for (group, mut left) in groups.iter().zip(left.rows_mut()) {
            let streams = streams.slice(s![first..first + group.len(), ..]);
            left -= &streams.mean_axis(Axis(0)).expect("a group has facts");
            first += group.len();
        }
        Ok(left)
    };
    let mut edited = model.clone();
    let mut factors = Vec::new();
    let mut measures = Vec::new();
    let mut written = Vec::new();
    for (i, (layer, covariance, null_space)) in editor.layers.iter().enumerate() {
        let left = missing(&edited)?;
        measures.push((format!("length of z - h before layer {layer}"), mean_length(&left)));
        let asked = left / (editor.layers.len() - i) as f64;
        let keys = mean_keys(&edited, *layer, groups)?;
        if keys.nrows() != covariance.matrix().nrows() {
            let (has, wants) = (covariance.matrix().nrows(), keys.nrows());
            return Err(Error::Statistics(format!("are of {has} neurons; the model's MLPs have {wants}")));
        }
        let u = match null_space {
            None => memit_update(covariance, keys.view(), editor.constants.lambda)?,
            Some(space) => {
                let earlier = memory.earlier(*layer, keys.nrows())?;
                let u = space.alphaedit_update(keys.view(), earlier.view(), editor.constants.l2)?;
                written.push((*layer, keys));
                u
            }
        };
        let id = ParamId::Block(*layer, BlockParam::MlpOutWeight);
        let change = (id, u.mapv(F::from_f64), asked.t().mapv(F::from_f64));
        let step = Patch::low_rank(&edited, [change.clone()]);
        let step = mask.map_or_else(|| step.clone(), |mask| step.masked(mask));
        let size = edited.get(id).iter().map(|w| w.as_f64() * w.as_f64()).sum::<f64>().sqrt();
        measures.push((format!("norm of change / norm of weights, layer {layer}"), step.norm() / size));
        edited = step.apply(&edited)?;
        factors.push(change);
    }
    measures.push(("length of z - h after".into(), mean_length(&missing(&edited)?)));
    if edited.ids().any(|id| edited.get(id).iter().any(|w| !w.is_finite())) {
        return Err(Error::Unstable("weights are no longer finite".into()));
    }
    let patch = Patch::low_rank(model, factors);
    let patch = mask.map_or_else(|| patch.clone(), |mask| patch.masked(mask));
    let curves: Vec<&[f64]> = targets.iter().map(|target| target.losses.as_slice()).collect();
    let losses = Report::mean_curve(&curves);
    let report = Report { steps: losses.len().saturating_sub(1), losses, measures, ..Report::default() };
    let edit = report.into_edit(model, patch, &facts)?;
    written.into_iter().for_each(|(layer, keys)| memory.add_keys(layer, keys));
    Ok(edit)
}

/// Key of every group, `[f, n]`: the mean over its facts of half the key of the bare prompt and half the mean over the
/// prefixed ones.
fn mean_keys<F: Scalar>(model: &Gpt2<F>, layer: usize, groups: &[&[Fact]]) -> Result<Array2<f64>> {
    let rows = groups.iter().copied().flatten().flat_map(|fact| &fact.contexts);
    let all = at_subjects(model, rows, layer, HookPoint::MlpPost)?;
    let mut keys = Array2::zeros((all.ncols(), groups.len()));
    let mut first = 0;
    for (group, mut key) in groups.iter().zip(keys.columns_mut()) {
        let of_facts = group.iter().map(|fact| {
            let n = fact.contexts.len();
            let rows = all.slice(s![first..first + n, ..]).mapv(|x| x.as_f64());
            first += n;
            match rows.slice(s![1.., ..]).mean_axis(Axis(0)) {
                Some(mean) => 0.5 * (&rows.row(0) + &mean),
                None => rows.row(0).to_owned(),
            }
        });
        let sum = of_facts.reduce(|sum, key| sum + key).expect("a group has facts");
        key.assign(&if group.len() > 1 { sum / group.len() as f64 } else { sum });
    }
    Ok(keys)
}

/// Mean Euclidean length of the rows.
fn mean_length(rows: &Array2<f64>) -> f64 {
    rows.rows().into_iter().map(|row| row.dot(&row).sqrt()).sum::<f64>() / rows.nrows().max(1) as f64
}
