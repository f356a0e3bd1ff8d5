//! Edits inside a scope, measured before and after (T2, T3, T4, T7).

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result};
use locus_editors::{ClampedSgd, LazyEdited, TokenRequest};
use locus_gpt2::{Gpt2, ParamMask, PromptTargets, Scalar};
use locus_metrics::token::beats;
use rayon::prelude::*;

use crate::controls::Controls;
use crate::neutral::NeutralText;
use crate::records::{Calibration, EditKind, EditOutcome, Scope};
use crate::requests::{PreparedRequest, StudyRequest};

/// Numbers of steps after which is looked whether the new target wins.
pub(crate) const WATCHED: [usize; 6] = [1, 2, 5, 10, 20, 50];
/// The edit of 50 steps is made for every other pair of a hyponym and its hypernym: it costs as much as all others.
const LONG_EVERY: u64 = 2;
/// Drift is measured on every eighth pair of a hyponym and its hypernym: a pass over neutral text costs more than the
/// edit itself.
pub(crate) const DRIFT_EVERY: usize = 8;
/// Share of requests that the calibrated edit is to write into the full model.
pub(crate) const WANTED: f64 = 0.9;
/// Requests that the calibration is made on, at most.
const CALIBRATION_REQUESTS: usize = 32;
/// Largest factor of the calibration: 2 to this power.
const MOST_DOUBLINGS: i32 = 10;

/// Scope of edits: labels for the record, and what the masks are made from.
#[derive(Clone, Debug)]
pub struct EditScope {
    /// Preset of the mask; empty for the intact model.
    pub preset: String,
    /// Task of the circuit, `none` for random masks and the intact model.
    pub task: String,
    /// Target density; 1 for the intact model.
    pub target_density: f64,
    /// Kind of scope.
    pub scope: Scope,
    /// Number of the mask among those of its kind.
    pub draw: usize,
    /// The trained mask that the scope is made from; `None` for scopes that need none.
    pub trained: Option<Arc<ParamMask>>,
}

impl EditScope {
    /// The intact model.
    pub fn full(scope: Scope) -> Self {
        let task = crate::records::NO_TASK.into();
        EditScope { preset: String::new(), task, target_density: 1.0, scope, draw: 0, trained: None }
    }

    /// Name of the scope, unique within a run and safe in file names.
    pub fn key(&self) -> String {
        let scope = serde_json::to_value(self.scope).expect("a plain enum");
        let EditScope { preset, task, target_density, draw, .. } = self;
        format!("{preset}-{task}-{target_density}-{}-{draw}", scope.as_str().expect("a string"))
    }

    /// The block parameters that are present, and those that may change; `None` means all of them.
    fn masks<F: Scalar>(&self, controls: &Controls<F>) -> (Option<ParamMask>, Option<ParamMask>) {
        let trained = || (**self.trained.as_ref().expect("a scope made from a trained mask has one")).clone();
        let name = || format!("{}/{}/{}", self.preset, self.task, self.target_density);
        let matched = || controls.matched(&trained(), &name(), self.draw);
        let random = || controls.random(self.target_density, self.draw);
        let magnitude = || controls.magnitude(trained().count());
        let nothing = || ParamMask::full(controls.config()).complement();
        let isolated = |mask: ParamMask| (Some(mask.clone()), Some(mask));
        match self.scope {
            Scope::Full | Scope::RandomWeightsFull => (None, None),
            Scope::FrozenFull => (None, Some(nothing())),
            Scope::FrozenCircuit => (Some(trained()), Some(nothing())),
            Scope::CircuitInPlace => (None, Some(trained())),
            Scope::MatchedInPlace => (None, Some(matched())),
            Scope::Circuit | Scope::Shuffled | Scope::RandomWeights => isolated(trained()),
            Scope::Complement | Scope::ShuffledComplement | Scope::RandomWeightsComplement => {
                isolated(trained().complement())
            }
            Scope::Random => isolated(random()),
            Scope::RandomComplement => isolated(random().complement()),
            Scope::Matched => isolated(matched()),
            Scope::MatchedComplement => isolated(matched().complement()),
            Scope::Magnitude => isolated(magnitude()),
            Scope::MagnitudeComplement => isolated(magnitude().complement()),
        }
    }
}

/// What all edits of one model have in common.
#[derive(Clone, Copy)]
pub struct Edits<'a, F> {
    /// The model.
    pub model: &'a Gpt2<F>,
    /// The requests to write, each independently of the others.
    pub requests: &'a [StudyRequest],
    /// Control masks.
    pub controls: &'a Controls<'a, F>,
    /// Text on which drift is measured.
    pub neutral: Option<&'a NeutralText<F>>,
    /// Factor of learning rate and clamp of the calibrated edit.
    pub factor: f64,
}

/// NLLs after an edit.
#[derive(Clone, Copy)]
struct After {
    new: f64,
    correct: f64,
    paraphrase: Option<f64>,
    neighbourhood: Option<f64>,
    drift: Option<f64>,
    steps: usize,
}

/// NLLs of a request before any edit.
struct Before {
    new: f64,
    correct: f64,
    discrimination: Option<f64>,
}

impl<F: Scalar> Edits<'_, F> {
    /// Writes every request in a scope by every kind of edit, each starting from the masked, unedited model. Edits of 10
    /// and 50 steps are looks at one edit.
    ///
    /// # Errors
    /// When a request does not fit the model.
    pub fn run(&self, scope: &EditScope, kinds: &[EditKind]) -> Result<Vec<EditOutcome>> {
        let (present, writable) = scope.masks(self.controls);
        let start = present.map_or_else(|| self.model.clone(), |mask| mask.ablate_complement(self.model));
        let before = self.before(&start)?;
        let mut outcomes = Vec::new();
        for (kinds, requests) in self.passes(kinds) {
            let longest = *kinds.last().expect("a pass has a kind");
            let editor = editor(longest, self.factor);
            let after = self.write(&start, writable.as_ref(), &kinds, &requests, &editor)?;
            for (&i, (seen, success)) in requests.iter().zip(&after) {
                for &kind in &kinds {
                    let PreparedRequest { case_id, level, .. } = self.requests[i].request;
                    let Before { new, correct, discrimination } = &before[i];
                    let After { steps, .. } = seen[&kind];
                    outcomes.push(EditOutcome {
                        preset: scope.preset.clone(),
                        task: scope.task.clone(),
                        target_density: scope.target_density,
                        scope: scope.scope,
                        draw: scope.draw,
                        edit: kind,
                        case_id,
                        level,
                        pre_new: *new,
                        pre_true: *correct,
                        discrimination: *discrimination,
                        post_new: seen[&kind].new,
                        post_true: seen[&kind].correct,
                        steps,
                        steps_to_success: success.filter(|&at| at <= steps),
                        paraphrase: seen[&kind].paraphrase,
                        neighbourhood: seen[&kind].neighbourhood,
                        drift: seen[&kind].drift,
                    });
                }
            }
        }
        Ok(outcomes)
    }

    /// Kinds of edit that are looks at one edit, shortest first, with the numbers of the requests that they are made for.
    fn passes(&self, kinds: &[EditKind]) -> Vec<(Vec<EditKind>, Vec<usize>)> {
        let is_long = |i: &usize| (self.requests[*i].request.case_id / 2).is_multiple_of(LONG_EVERY);
        let all = 0..self.requests.len();
        let (long, short): (Vec<usize>, Vec<usize>) = if kinds.contains(&EditKind::Steps50) {
            all.clone().partition(is_long)
        } else {
            (Vec::new(), all.clone().collect())
        };
        // With this factor the calibrated edit is the published one of 10 steps.
        let is_published = |kind: EditKind| kind != EditKind::Calibrated || self.factor == 1.0;
        let chosen = |wanted: &[EditKind], published: bool| -> Vec<EditKind> {
            let wanted = wanted.iter().copied().filter(|kind| kinds.contains(kind));
            wanted.filter(|&kind| is_published(kind) == published).collect()
        };
        let mut passes = vec![
            (chosen(&[EditKind::Steps10, EditKind::Calibrated, EditKind::Steps50], true), long),
            (chosen(&[EditKind::Steps10, EditKind::Calibrated], true), short),
            (chosen(&[EditKind::Calibrated], false), all.collect()),
        ];
        passes.retain(|(kinds, requests)| !kinds.is_empty() && !requests.is_empty());
        passes
    }

    fn before(&self, start: &Gpt2<F>) -> Result<Vec<Before>> {
        let before = |study: &StudyRequest| {
            let (PreparedRequest { prompt, target_new, case_id, .. }, target_true) =
                (&study.request, &study.target_true);
            let targets = [target_new, target_true].into_iter().chain(&study.others);
            let pairs: Vec<_> = targets.map(|target| (prompt, target)).collect();
            let packed = PromptTargets::prefix_sharing(start.config(), &pairs)
                .with_context(|| format!("request {case_id}"))?;
            let nll = packed.nll_per_token(start);
            let (correct, others) = (nll[1], &nll[2..]);
            let wins = others.iter().map(|&other| match correct.total_cmp(&other) {
                std::cmp::Ordering::Less => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Greater => 0.0,
            });
            let discrimination = (!others.is_empty()).then(|| wins.sum::<f64>() / others.len() as f64);
            Ok(Before { new: nll[0], correct, discrimination })
        };
        self.requests.par_iter().map(before).collect()
    }

    /// The state after each kind of edit of some requests, and the steps after which the new target first won.
    fn write(
        &self,
        start: &Gpt2<F>,
        writable: Option<&ParamMask>,
        kinds: &[EditKind],
        requests: &[usize],
        editor: &ClampedSgd,
    ) -> Result<Vec<(BTreeMap<EditKind, After>, Option<usize>)>> {
        let to_write: Vec<TokenRequest> =
            requests.iter().map(|&i| self.requests[i].request.token_request()).collect();
        let mut state: Vec<(BTreeMap<EditKind, After>, Option<usize>)> =
            vec![Default::default(); to_write.len()];
        let neutral_before = self.neutral.map(|text| {
            let nll = text.packed.nll_per_token(start);
            text.mean_of_lines(&nll)
        });
        editor.fine_tune_watched(start, &to_write, writable, &WATCHED, |i, edited, report, done| {
            let (seen, success) = &mut state[i];
            // An edit that ends early is the end of the longer kinds, too.
            let due = kinds.iter().copied().filter(|&kind| {
                !seen.contains_key(&kind) && (done || report.steps == self::editor(kind, 1.0).max_steps)
            });
            let due: Vec<EditKind> = due.collect();
            let after = self.after(requests[i], edited, report.steps, neutral_before, !due.is_empty())?;
            if success.is_none() && beats(after.new, after.correct) {
                *success = Some(report.steps);
            }
            seen.extend(due.into_iter().map(|kind| (kind, after)));
            Ok::<_, anyhow::Error>(())
        })?;
        Ok(state)
    }

    /// Measures an edited model on one request; on the two targets alone unless everything is wanted.
    fn after(
        &self,
        i: usize,
        edited: &LazyEdited<F>,
        steps: usize,
        neutral_before: Option<f64>,
        everything: bool,
    ) -> Result<After> {
        let study = &self.requests[i];
        let (PreparedRequest { prompt, target_new, case_id, .. }, target_true) =
            (&study.request, &study.target_true);
        let (paraphrases, neighbourhood): (&[Vec<u32>], &[Vec<u32>]) =
            if everything { (&study.paraphrases, &study.neighbourhood) } else { (&[], &[]) };
        let prompts = std::iter::once(prompt).chain(paraphrases).chain(neighbourhood);
        let pairs: Vec<_> =
            prompts.flat_map(|prompt| [(prompt, target_new), (prompt, target_true)]).collect();
        let packed = PromptTargets::prefix_sharing(self.model.config(), &pairs)
            .with_context(|| format!("request {case_id}"))?;
        let nll = edited.nll_per_token(&packed);
        let (own, rest) = nll.split_at(2);
        let (paraphrases, neighbourhood) = rest.split_at(2 * paraphrases.len());
        let share = |nll: &[f64], wins: fn(&[f64]) -> bool| {
            let pairs = nll.chunks(2);
            let n = pairs.len();
            (n > 0).then(|| pairs.filter(|pair| wins(pair)).count() as f64 / n as f64)
        };
        let drift =
            self.neutral.zip(neutral_before).filter(|_| everything && (i / 2).is_multiple_of(DRIFT_EVERY));
        let drift = drift.map(|(text, before)| {
            let nll = edited.nll_per_token(&text.packed);
            text.mean_of_lines(&nll) - before
        });
        Ok(After {
            new: own[0],
            correct: own[1],
            paraphrase: share(paraphrases, |pair| beats(pair[0], pair[1])),
            neighbourhood: share(neighbourhood, |pair| beats(pair[1], pair[0])),
            drift,
            steps,
        })
    }

    /// Doubles learning rate and clamp of the edit of 10 steps until the full model prefers the new target for the
    /// wanted share of some requests. Where no factor does, the one with the largest share is taken.
    ///
    /// # Errors
    /// When a request does not fit the model.
    pub fn calibrate(&self) -> Result<Calibration> {
        let n = self.requests.len().min(CALIBRATION_REQUESTS);
        let chosen: Vec<StudyRequest> =
            (0..n).map(|i| self.requests[i * self.requests.len() / n].clone()).collect();
        let mut best: Option<Calibration> = None;
        for doublings in 0..=MOST_DOUBLINGS {
            let factor = 2f64.powi(doublings);
            let edits = Edits { requests: &chosen, factor, ..*self };
            let outcomes = edits.run(&EditScope::full(Scope::Full), &[EditKind::Calibrated])?;
            let wins = outcomes.iter().filter(|e| beats(e.post_new, e.post_true)).count();
            let success = wins as f64 / n.max(1) as f64;
            let drifts: Vec<f64> = outcomes.iter().filter_map(|e| e.drift).collect();
            let drift = locus_metrics::token::mean(&drifts);
            if best.is_none_or(|best| success > best.success) {
                best = Some(Calibration { factor, wanted: WANTED, success, drift, requests: n });
            }
            if success >= WANTED {
                break;
            }
        }
        Ok(best.expect("at least one factor was tried"))
    }
}

/// The published edit, of a kind; `factor` scales learning rate and clamp of the calibrated one.
fn editor(kind: EditKind, factor: f64) -> ClampedSgd {
    let published = ClampedSgd::default();
    match kind {
        EditKind::Steps10 => ClampedSgd { max_steps: 10, ..published },
        EditKind::Steps50 => ClampedSgd { max_steps: 50, ..published },
        EditKind::Calibrated => ClampedSgd {
            lr: factor * published.lr,
            clamp: factor * published.clamp,
            max_steps: 10,
            ..published
        },
    }
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Config;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;
    use crate::records::Level;

    /// At a factor of 1 the calibrated edit is a look at the published one; at others it is an edit of its own.
    #[test]
    fn a_factor_of_one_is_the_published_edit() {
        let model = Gpt2::<f64>::init(&Config::new(2, 2, 8, 16, 32), &mut ChaCha8Rng::seed_from_u64(1));
        let request = |i: u32| StudyRequest {
            request: PreparedRequest {
                case_id: i.into(),
                level: if i.is_multiple_of(2) { Level::Hyponym } else { Level::Hypernym },
                prompt: vec![i, i + 3],
                target_new: vec![i + 9],
                target_true: Some(vec![5]),
            },
            wording: None,
            target_true: vec![5],
            component: 0,
            paraphrases: Vec::new(),
            neighbourhood: Vec::new(),
            others: Vec::new(),
        };
        let requests: Vec<StudyRequest> = (0..4).map(request).collect();
        let controls = Controls::new(&model, 1);
        let after = |factor: f64, wanted: EditKind| -> BTreeMap<u64, f64> {
            let edits =
                Edits { model: &model, requests: &requests, controls: &controls, neutral: None, factor };
            let kinds = [EditKind::Steps10, EditKind::Steps50, EditKind::Calibrated];
            let outcomes = edits.run(&EditScope::full(Scope::Full), &kinds).unwrap();
            assert_eq!(outcomes.len(), 4 + 2 + 4);
            let outcomes = outcomes.iter().filter(|outcome| outcome.edit == wanted);
            outcomes.map(|outcome| (outcome.case_id, outcome.post_new)).collect()
        };
        assert_eq!(after(1.0, EditKind::Calibrated), after(1.0, EditKind::Steps10));
        assert_eq!(after(1.0, EditKind::Calibrated).len(), 4);
        assert_ne!(after(2.0, EditKind::Calibrated), after(2.0, EditKind::Steps10));
        assert_eq!(after(2.0, EditKind::Steps50), after(1.0, EditKind::Steps50));
    }
}
