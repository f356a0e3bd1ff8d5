//! Many requests at once, each edited on its own from the same weights.
//!
//! [`ClampedSgd::fine_tune`] does the same on a copy of the weights. Here a request's change is never added to them, so
//! the weights are read once for all requests under way, and a request takes only the memory of what it may move.

use locus_gpt2::internal::{nll_of_row, split_rows, split_rows_view};
use locus_gpt2::{Gpt2, ParamMask, PromptTargets, Scalar, compiled, log_sum_exp};
use ndarray::Axis;
use rayon::prelude::*;

use super::ClampedSgd;
use super::matrix::Descent;
use super::pass::{Change, Forward, SharedStart};
use crate::editor::{Report, check_mask};
use crate::error::Result;
use crate::fact::TokenRequest;

/// Largest number of tokens of the requests under way: with more, products hardly run faster, and every request takes
/// memory.
const MOST_ROWS: usize = 192;
/// Memory that the requests under way may take.
#[derive(Clone, Copy)]
struct Room {
    /// Largest number of bytes of the factors of all steps (see [`super::matrix`]).
    steps: usize,
    /// Bytes of changes of single entries; while there are fewer, another request may begin.
    changes: usize,
}

/// Two changes of all block weights of GPT-2 small, and the factors of a request of some tokens.
const ROOM: Room = Room { steps: 300 << 20, changes: 600 << 20 };

/// An edited model whose weights are not written out: the unedited weights, which are shared, and one request's change.
pub struct LazyEdited<'a, F> {
    shared: &'a SharedStart<'a, F>,
    change: &'a Change<F>,
}

impl<F: Scalar> LazyEdited<'_, F> {
    /// Mean NLL per target token of each sequence, in nats, as [`PromptTargets::nll_per_token`] gives for the edited
    /// weights.
    pub fn nll_per_token(&self, packed: &PromptTargets<F>) -> Vec<f64> {
        F::run::<NllJob>((self, packed))
    }

    /// Writes the edited weights out.
    pub fn weights(&self) -> Gpt2<F> {
        F::run::<WeightsJob>(self)
    }
}

compiled!(NllJob<'a>: <F> (&'a LazyEdited<'a, F>, &'a PromptTargets<F>) => Vec<f64>, nll_per_token);

fn nll_per_token<F: Scalar>((edited, packed): (&LazyEdited<'_, F>, &PromptTargets<F>)) -> Vec<f64> {
    let Forward { logits, places, .. } =
        edited.shared.forward(packed, &[(edited.change, packed.n_targets.len())]);
    let rows = logits.axis_iter(Axis(0)).into_par_iter();
    let sums = rows.map(|row| log_sum_exp(row.to_slice().expect("rows are contiguous")));
    let sums: Vec<f64> = sums.collect();
    let nll = places.iter().zip(&packed.targets);
    let nll = nll.map(|(&place, target)| sums[place] - logits[[place, target.token as usize]].as_f64());
    packed.mean_per_sequence(&nll.collect::<Vec<f64>>())
}

compiled!(WeightsJob<'a>: <F> &'a LazyEdited<'a, F> => Gpt2<F>, weights);

fn weights<F: Scalar>(edited: &LazyEdited<'_, F>) -> Gpt2<F> {
    edited.shared.apply(edited.change)
}

/// Called with each edit at the steps to watch and when it is done: the request's index, the edited model, the report
/// and whether it is done. Returns whether to go on.
type Watch<'a, F> = &'a mut dyn FnMut(usize, &LazyEdited<'_, F>, &Report, bool) -> bool;
type EachInput<'a, F> =
    (Room, &'a Gpt2<F>, &'a [TokenRequest], Option<&'a ParamMask>, &'a [usize], Watch<'a, F>);

compiled!(EachJob<'a>: <F> (&'a ClampedSgd, EachInput<'a, F>) => Result<()>, each);

fn each<F: Scalar>((editor, input): (&ClampedSgd, EachInput<'_, F>)) -> Result<()> {
    editor.each(input)
}

/// A request under way.
struct Active<'a, F> {
    index: usize,
    request: &'a TokenRequest,
    /// The tokens that the model reads: the prompt, and the target without its last token.
    tokens: Vec<u32>,
    change: Change<F>,
    report: Report,
    done: bool,
}

impl ClampedSgd {
    /// Edits many requests at once, each independently of the others and starting from `start`, as
    /// [`ClampedSgd::fine_tune`] does. Calls `finish` with a request's index, edited model and report as soon as it is
    /// done, and returns the results of these calls in the order of the requests.
    ///
    /// Edits agree with those of [`ClampedSgd::fine_tune`] up to rounding. Memory is taken by the requests under way:
    /// where the mask lets few parameters move, each needs a few times the size of those; where it lets about half move,
    /// as much as all of them; where it lets most move, the steps of all requests together need up to about 300 MB, and
    /// where the clamp acts, the change of each request takes as much as the parameters that may move. No request begins
    /// while the changes take 600 MiB; those under way are finished.
    ///
    /// # Errors
    /// When a constant is out of range, the mask or a request does not fit the model (before any is edited) or `finish`
    /// fails.
    pub fn fine_tune_each<F: Scalar, T, E: From<crate::Error>>(
        &self,
        start: &Gpt2<F>,
        requests: &[TokenRequest],
        mask: Option<&ParamMask>,
        mut finish: impl FnMut(usize, &LazyEdited<'_, F>, &Report) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        self.fine_tune_watched(start, requests, mask, &[], |i, edited, report, _| finish(i, edited, report))
    }

    /// [`ClampedSgd::fine_tune_each`] with a look at each edit after some of its steps, so that edits of several lengths
    /// cost one. `watch` is called after each number of steps in `watched`, and when an edit is done, which its last
    /// argument says; results of the last call for each request are returned.
    ///
    /// # Errors
    /// As [`ClampedSgd::fine_tune_each`].
    pub fn fine_tune_watched<F: Scalar, T, E: From<crate::Error>>(
        &self,
        start: &Gpt2<F>,
        requests: &[TokenRequest],
        mask: Option<&ParamMask>,
        watched: &[usize],
        watch: impl FnMut(usize, &LazyEdited<'_, F>, &Report, bool) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        self.fine_tune_within(ROOM, start, requests, mask, watched, watch)
    }

    /// [`ClampedSgd::fine_tune_watched`] with room of another size.
    fn fine_tune_within<F: Scalar, T, E: From<crate::Error>>(
        &self,
        room: Room,
        start: &Gpt2<F>,
        requests: &[TokenRequest],
        mask: Option<&ParamMask>,
        watched: &[usize],
        mut watch: impl FnMut(usize, &LazyEdited<'_, F>, &Report, bool) -> std::result::Result<T, E>,
    ) -> std::result::Result<Vec<T>, E> {
        let mut results: Vec<Option<T>> = requests.iter().map(|_| None).collect();
        let mut failure = None;
        let mut keep = |index: usize, edited: &LazyEdited<'_, F>, report: &Report, done: bool| {
            match watch(index, edited, report, done) {
                Ok(result) => results[index] = Some(result),
                Err(error) => failure = Some(error),
            }
            failure.is_none()
        };
        F::run::<EachJob>((self, (room, start, requests, mask, watched, &mut keep)))?;
        match failure {
            Some(error) => Err(error),
            None => Ok(results.into_iter().map(|result| result.expect("every request was done")).collect()),
        }
    }

    /// Edits the requests, calling `watch` with each, until that returns false. One request is always under way,
    /// whatever the room.
    fn each<F: Scalar>(&self, (room, start, requests, mask, watched, watch): EachInput<'_, F>) -> Result<()> {
        self.check()?;
        check_mask(mask, start.config())?;
        for request in requests {
            PromptTargets::<F>::new(start.config(), &[(&request.prompt, &request.target)])?;
        }
        let descent = Descent { lr: F::from_f64(self.lr), clamp: F::from_f64(self.clamp) };
        let shared = SharedStart::new(start, mask, descent);
        let bytes_of_step = shared.bytes_of_step();
        let memory_is_scarce = MOST_ROWS * self.max_steps * bytes_of_step > room.steps;
        let mut under_way: Vec<Active<F>> = Vec::new();
        let mut left = requests.iter().enumerate().peekable();
        loop {
            let mut rows: usize = under_way.iter().map(|active| active.tokens.len()).sum();
            while let Some(&(index, request)) = left.peek() {
                let tokens = [&request.prompt[..], &request.target[..request.target.len() - 1]].concat();
                let steps_taken: Vec<_> =
                    under_way.iter().map(|active| (active.tokens.len(), active.report.steps)).collect();
                let changes: usize = under_way.iter().map(|active| active.change.bytes()).sum();
                let fits = rows + tokens.len() <= MOST_ROWS
                    && self.most_steps_ahead(tokens.len(), &steps_taken) * bytes_of_step <= room.steps
                    && changes < room.changes;
                if !under_way.is_empty() && !fits {
                    break;
                }
                rows += tokens.len();
                let change = shared.unchanged(&tokens);
                under_way.push(Active {
                    index,
                    request,
                    tokens,
                    change,
                    report: Report::default(),
                    done: false,
                });
                left.next();
                // One new request per step: started together, all would be at their last step, and largest, at once.
                if memory_is_scarce {
                    break;
                }
            }
            if under_way.is_empty() {
                break;
            }
            self.step(&shared, &mut under_way)?;
            for active in &under_way {
                // A step that a small loss stopped changed nothing: what is seen is the edit as it stays.
                let edited = LazyEdited { shared: &shared, change: &active.change };
                if (active.done || watched.contains(&active.report.steps))
                    && !watch(active.index, &edited, &active.report, active.done)
                {
                    return Ok(());
                }
            }
            under_way.retain(|active| !active.done);
        }
        Ok(())
    }

    /// Largest number of rows of steps that will be kept at once when a request of `rows` tokens begins beside those
    /// `under_way`, given as (tokens, steps taken). A request keeps the rows of all its steps until the last is done.
    fn most_steps_ahead(&self, rows: usize, under_way: &[(usize, usize)]) -> usize {
        let kept = |rows: usize, steps: usize| if steps <= self.max_steps { rows * steps } else { 0 };
        let at = |ahead: usize| {
            let kept_by_others = under_way.iter().map(|&(rows, steps)| kept(rows, steps + ahead));
            kept(rows, ahead) + kept_by_others.sum::<usize>()
        };
        (1..=self.max_steps).map(at).max().unwrap_or(0)
    }

    /// Makes one step of every request under way, and marks those that are done.
    fn step<F: Scalar>(&self, shared: &SharedStart<F>, under_way: &mut [Active<F>]) -> Result<()> {
        let pairs: Vec<_> =
            under_way.iter().map(|active| (&active.request.prompt, &active.request.target)).collect();
        let packed = PromptTargets::new(shared.start.config(), &pairs)?;
        let changes: Vec<_> = under_way.iter().map(|active| (&active.change, 1)).collect();
        let mut forward = shared.forward(&packed, &changes);
        let mut d_logits = std::mem::take(&mut forward.logits);
        let counts = || packed.n_targets.iter().copied();
        let parts = split_rows(d_logits.view_mut(), counts());
        under_way.par_iter_mut().zip(parts).for_each(|(active, mut d_logits)| {
            let targets = &active.request.target;
            let mut loss = 0.0;
            for (mut row, &token) in d_logits.rows_mut().into_iter().zip(targets) {
                loss += nll_of_row(row.as_slice_mut().expect("rows are contiguous"), token);
            }
            let loss = loss / targets.len() as f64;
            active.report.losses.push(loss);
            if loss < self.loss_stop {
                active.done = true;
                // Without a gradient nothing moves.
                d_logits.fill(F::zero());
            } else {
                active.report.steps += 1;
                active.done = active.report.steps == self.max_steps;
                let mean = F::one() / F::from_f64(targets.len() as f64);
                d_logits.map_inplace(|d| *d *= mean);
            }
        });
        let hidden = std::mem::take(&mut forward.hidden);
        let mut changes: Vec<_> = under_way.iter_mut().map(|active| &mut active.change).collect();
        let d_embedded = shared.backward(forward, d_logits.view(), &mut changes);
        let lengths: Vec<usize> = packed.batch.sequences().map(|rows| rows.len()).collect();
        let parts = split_rows_view(hidden.view(), counts());
        let parts = parts.into_par_iter().zip(split_rows_view(d_logits.view(), counts()));
        let parts = parts.zip(split_rows_view(d_embedded.view(), lengths.into_iter()));
        under_way.par_iter_mut().zip(parts).for_each(|(active, ((hidden, d_logits), d_embedded))| {
            let Change { tokens, positions, .. } = &mut active.change;
            tokens.step(shared.descent, hidden, d_logits, &active.tokens, d_embedded);
            positions.zip_mut_with(&d_embedded, |c, &g| *c = shared.descent.moved(*c, g));
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use locus_gpt2::Config;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::SeedableRng;

    use super::*;

    #[test]
    fn steps_ahead_are_counted_until_the_last() {
        let editor = ClampedSgd { max_steps: 4, ..Default::default() };
        assert_eq!(editor.most_steps_ahead(3, &[]), 3 * 4);
        // After one step 5 + 2 * 4 + 3 * 2, after two 5 * 2 + 3 * 3, after three 5 * 3 + 3 * 4, after four 5 * 4.
        assert_eq!(editor.most_steps_ahead(5, &[(2, 3), (3, 1)]), 27);
        assert_eq!(editor.most_steps_ahead(1, &[(2, 3), (3, 1)]), 15);
    }

    /// Requests that begin at different times, and one at a time, end where those that begin together do.
    #[test]
    fn the_bound_on_memory_changes_no_edit() {
        let start = Gpt2::<f64>::init(&Config::new(2, 2, 8, 16, 32), &mut ChaCha8Rng::seed_from_u64(1));
        let request = |i: u32| TokenRequest { prompt: vec![i, i + 3, 2 * i], target: vec![i + 9, 5] };
        let requests: Vec<TokenRequest> = (1..7).map(request).collect();
        let editor = ClampedSgd { lr: 0.05, clamp: 0.05, max_steps: 4, loss_stop: 0.0 };
        let descent = Descent { lr: editor.lr, clamp: editor.clamp };
        let request_bytes = 4 * editor.max_steps * SharedStart::new(&start, None, descent).bytes_of_step();
        let edits = |room| {
            let mut order = Vec::new();
            let nll =
                editor.fine_tune_within(room, &start, &requests, None, &[], |i, tuned, report, done| {
                    assert!(done);
                    order.push((i, report.steps));
                    let packed =
                        PromptTargets::new(start.config(), &[(&requests[i].prompt, &requests[i].target)])?;
                    Ok::<_, crate::Error>(tuned.nll_per_token(&packed)[0])
                });
            assert_eq!(order, (0..6).map(|i| (i, 4)).collect::<Vec<_>>());
            nll.unwrap()
        };
        let ample = Room { steps: usize::MAX, changes: usize::MAX };
        let together = edits(ample);
        let bounds = [
            Room { steps: 0, ..ample },
            Room { steps: 2 * request_bytes, ..ample },
            Room { changes: 0, ..ample },
            Room { changes: 1000, ..ample },
        ];
        for room in bounds {
            for (bounded, together) in edits(room).iter().zip(&together) {
                // Products with other rows beside them round otherwise.
                assert!((bounded - together).abs() < 1e-12, "{bounded} against {together}");
            }
        }
    }

    /// What is seen on the way is where an edit of that length ends.
    #[test]
    fn a_watched_edit_passes_through_the_shorter_ones() {
        let start = Gpt2::<f64>::init(&Config::new(2, 2, 8, 16, 32), &mut ChaCha8Rng::seed_from_u64(1));
        let requests = [1u32, 4].map(|i| TokenRequest { prompt: vec![i, i + 3], target: vec![i + 9, 5] });
        let editor = ClampedSgd { lr: 0.05, clamp: 0.05, max_steps: 5, loss_stop: 0.0 };
        let nll = |i: usize, tuned: &LazyEdited<f64>| {
            let request: &TokenRequest = &requests[i];
            let packed = PromptTargets::new(start.config(), &[(&request.prompt, &request.target)])?;
            Ok::<_, crate::Error>(tuned.nll_per_token(&packed)[0])
        };
        let mut seen = Vec::new();
        let last = editor
            .fine_tune_watched(&start, &requests, None, &[2, 3], |i, tuned, report, done| {
                seen.push((i, report.steps, done, nll(i, tuned)?));
                nll(i, tuned)
            })
            .unwrap();
        for (steps, done) in [(2, false), (3, false), (5, true)] {
            let editor = ClampedSgd { max_steps: steps, ..editor };
            let alone = editor.fine_tune_each(&start, &requests, None, |i, tuned, _| nll(i, tuned)).unwrap();
            for (i, expected) in alone.iter().enumerate() {
                let found = seen.iter().find(|(j, at, ..)| (*j, *at) == (i, steps)).unwrap();
                assert!(
                    found.2 == done && (found.3 - expected).abs() < 1e-12,
                    "{found:?} against {expected}"
                );
            }
        }
        assert_eq!(seen.len(), 6);
        assert_eq!(last.len(), 2);
    }
}
