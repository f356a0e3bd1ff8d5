//! CounterFact: does an edit hold, does it generalise, and does it leave other subjects alone?
//!
//! Every prompt is followed by the new and by the true target; what counts is the NLL of each (mean per target
//! token, in nats), so long targets are not at a disadvantage. With `p = exp(-NLL)`:
//!
//! | score | prompts | a prompt's value |
//! |---|---|---|
//! | ES, EM | rewrite | `p(new) > p(true)`; `p(new) - p(true)` |
//! | PS, PM | paraphrase | the same |
//! | NS, NM | neighbourhood: same relation, other subjects | `p(true) > p(new)`; `p(true) - p(new)` |
//! | S | | harmonic mean of ES, PS and NS |
//!
//! A score is the mean over cases of the mean over a case's prompts, and S is taken of these means. Ties fail.
//!
//! Source: Meng, Bau, Andonian and Belinkov 2022 (ROME, arXiv:2202.05262), section 3.4, and their `summarize.py`.
//! They report scores times 100 and `1.96 s / sqrt(n)`; here shares stay in `[0, 1]` and intervals come from
//! the bootstrap over cases.
//!
//! ```
//! use locus_metrics::{Stream, bootstrap::RESAMPLES, counterfact::{Case, Scores}};
//!
//! let case = Case {
//!     rewrite: vec![(0.1, 5.0)],                    // (new, true)
//!     paraphrase: vec![(0.7, 2.0), (3.0, 1.5)],     // one of two follows the edit
//!     neighborhood: vec![(4.0, 0.5), (6.0, 0.2)],   // both keep their answer
//! };
//! let scores = Scores::of(&[case], RESAMPLES, Stream::named(1, "ROME"));
//! let value = |interval: Option<locus_metrics::Interval>| interval.unwrap().value;
//! assert_eq!((value(scores.efficacy), value(scores.paraphrase)), (1.0, 0.5));
//! assert_eq!((value(scores.neighborhood), value(scores.score)), (1.0, 0.75));
//! ```

use crate::{
    Interval, Stream,
    run::{harmonic_mean_over, mean_over},
    token::{beats_share, mean, probability},
};

/// NLLs after the edit of one request, a `(new, true)` pair per prompt.
///
/// An NLL of NaN, from an edit that diverged, wins no comparison and leaves the magnitude of its kind undefined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// The prompts that were edited (CounterFact has one).
    pub rewrite: Vec<(f64, f64)>,
    /// The same statement in other words.
    pub paraphrase: Vec<(f64, f64)>,
    /// The same relation of other subjects, for which the true target is right.
    pub neighborhood: Vec<(f64, f64)>,
}

/// Scores of a run; `None` where no case has prompts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// ES: share of rewrite prompts that prefer the new target.
    pub efficacy: Option<Interval>,
    /// EM: lead in probability of the new target after rewrite prompts.
    pub efficacy_magnitude: Option<Interval>,
    /// PS: share of paraphrases that prefer the new target.
    pub paraphrase: Option<Interval>,
    /// PM: lead in probability of the new target after paraphrases.
    pub paraphrase_magnitude: Option<Interval>,
    /// NS: share of neighbourhood prompts that prefer the true target.
    pub neighborhood: Option<Interval>,
    /// NM: lead in probability of the true target after neighbourhood prompts.
    pub neighborhood_magnitude: Option<Interval>,
    /// S: harmonic mean of ES, PS and NS; 0 if one of them is.
    pub score: Option<Interval>,
}

impl Scores {
    /// Scores of a run, with intervals from the same resamples of cases for all of them.
    ///
    /// A case without prompts of a kind is left out of the scores of that kind.
    ///
    /// # Panics
    /// If there are cases but no resamples.
    pub fn of(cases: &[Case], resamples: usize, stream: Stream) -> Self {
        let per_case = |value: &dyn Fn(&Case) -> Option<f64>| cases.iter().map(value).collect::<Vec<_>>();
        let estimate = |value: &dyn Fn(&Case) -> Option<f64>| mean_over(&per_case(value), resamples, stream);
        let efficacy = per_case(&|case| beats_share(&case.rewrite));
        let paraphrase = per_case(&|case| beats_share(&case.paraphrase));
        let neighborhood = per_case(&|case| beats_share(&swapped(&case.neighborhood)));
        Self {
            efficacy: mean_over(&efficacy, resamples, stream),
            efficacy_magnitude: estimate(&|case| lead(&case.rewrite)),
            paraphrase: mean_over(&paraphrase, resamples, stream),
            paraphrase_magnitude: estimate(&|case| lead(&case.paraphrase)),
            neighborhood: mean_over(&neighborhood, resamples, stream),
            neighborhood_magnitude: estimate(&|case| lead(&swapped(&case.neighborhood))),
            score: harmonic_mean_over([&efficacy, &paraphrase, &neighborhood], resamples, stream),
        }
    }
}

/// Mean lead in probability of the first over the second of each pair.
fn lead(pairs: &[(f64, f64)]) -> Option<f64> {
    mean(&pairs.iter().map(|&(first, second)| probability(first) - probability(second)).collect::<Vec<_>>())
}

fn swapped(pairs: &[(f64, f64)]) -> Vec<(f64, f64)> {
    pairs.iter().map(|&(first, second)| (second, first)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RESAMPLES: usize = 50;
    const STREAM: Stream = Stream::new(3, 1);

    fn values(cases: &[Case]) -> [Option<f64>; 7] {
        let s = Scores::of(cases, RESAMPLES, STREAM);
        [
            s.efficacy,
            s.efficacy_magnitude,
            s.paraphrase,
            s.paraphrase_magnitude,
            s.neighborhood,
            s.neighborhood_magnitude,
            s.score,
        ]
        .map(|interval| interval.map(|interval| interval.value))
    }

    #[test]
    fn scores_agree_with_the_formulas() {
        let case = |rewrite: &[(f64, f64)], paraphrase: &[(f64, f64)], neighborhood: &[(f64, f64)]| Case {
            rewrite: rewrite.to_vec(),
            paraphrase: paraphrase.to_vec(),
            neighborhood: neighborhood.to_vec(),
        };
        // Unequal numbers of prompts, two ties, and a missing kind in two of the cases.
        let cases = [
            case(&[(0.2, 3.1)], &[(0.9, 1.4), (2.5, 1.7)], &[(4.0, 0.5), (1.1, 1.3), (2.0, 2.0)]),
            case(&[(1.5, 1.5)], &[(0.7, 0.8)], &[(3.0, 0.1)]),
            case(&[(0.05, 6.0), (0.4, 0.3)], &[], &[(2.2, 0.9), (5.0, 1.0)]),
            case(&[(0.1, 2.0)], &[(1.0, 2.0), (3.0, 0.2), (0.6, 0.9)], &[]),
        ];
        // The formulas of the module's documentation, evaluated in Python.
        let expected = [
            0.625,
            0.49557748358068887,
            0.7222222222222222,
            -0.01814747509378466,
            0.7777777777777777,
            0.4531543080544502,
            0.7025218733916624,
        ];
        for (value, expected) in values(&cases).into_iter().zip(expected) {
            assert!((value.unwrap() - expected).abs() < 1e-14, "{value:?} for {expected}");
        }
    }

    #[test]
    fn a_kind_without_prompts_has_no_scores() {
        let case = Case { rewrite: vec![(1.0, 2.0)], paraphrase: vec![(1.0, 2.0)], neighborhood: vec![] };
        let [efficacy, _, paraphrase, _, neighborhood, neighborhood_magnitude, score] = values(&[case]);
        assert_eq!((efficacy, paraphrase), (Some(1.0), Some(1.0)));
        assert_eq!((neighborhood, neighborhood_magnitude, score), (None, None, None));
        assert_eq!(values(&[]), [None; 7]);
    }

    #[test]
    fn a_diverged_edit_fails() {
        let lost = vec![(f64::NAN, f64::NAN)];
        let case = Case { rewrite: lost.clone(), paraphrase: lost.clone(), neighborhood: lost };
        let (failed, undefined) = (Some(0.0), None);
        let expected = [failed, undefined, failed, undefined, failed, undefined, failed];
        assert_eq!(values(&[case]), expected);
    }

    /// NLLs from a coarse grid, so that ties occur.
    fn pairs() -> impl Strategy<Value = Vec<(f64, f64)>> {
        let nll = || (0u8..8).prop_map(|step| f64::from(step) / 2.0);
        prop::collection::vec((nll(), nll()), 1..5)
    }

    fn case() -> impl Strategy<Value = Case> {
        (pairs(), pairs(), pairs()).prop_map(|(rewrite, paraphrase, neighborhood)| Case {
            rewrite,
            paraphrase,
            neighborhood,
        })
    }

    proptest! {
        #[test]
        fn shares_magnitudes_and_score_are_bounded(cases in prop::collection::vec(case(), 1..8)) {
            let [es, em, ps, pm, ns, nm, s] = values(&cases).map(Option::unwrap);
            for share in [es, ps, ns, s] {
                prop_assert!((0.0..=1.0).contains(&share));
            }
            for magnitude in [em, pm, nm] {
                prop_assert!((-1.0..=1.0).contains(&magnitude));
            }
            prop_assert!(s >= es.min(ps).min(ns) - 1e-12);
            prop_assert!(s <= (es + ps + ns) / 3.0 + 1e-12);
            prop_assert_eq!(s == 0.0, es.min(ps).min(ns) == 0.0);
        }

        #[test]
        fn new_and_true_change_places(cases in prop::collection::vec(case(), 1..8)) {
            let mirror = |case: &Case| Case {
                rewrite: swapped(&case.rewrite),
                paraphrase: swapped(&case.paraphrase),
                neighborhood: swapped(&case.neighborhood),
            };
            let ties = |kind: fn(&Case) -> &[(f64, f64)]| {
                let share = |pairs: &[(f64, f64)]| {
                    pairs.iter().filter(|(new, old)| new == old).count() as f64 / pairs.len() as f64
                };
                cases.iter().map(|case| share(kind(case))).sum::<f64>() / cases.len() as f64
            };
            let ties = [ties(|c| &c.rewrite), ties(|c| &c.paraphrase), ties(|c| &c.neighborhood)];
            let here = values(&cases).map(Option::unwrap);
            let there = values(&cases.iter().map(mirror).collect::<Vec<_>>()).map(Option::unwrap);
            for kind in 0..3 {
                let (share, magnitude) = (2 * kind, 2 * kind + 1);
                prop_assert!((here[share] + there[share] + ties[kind] - 1.0).abs() < 1e-12);
                prop_assert!((here[magnitude] + there[magnitude]).abs() < 1e-12);
            }
        }

        #[test]
        fn neighborhoods_are_rewrites_with_the_targets_swapped(cases in prop::collection::vec(pairs(), 1..8)) {
            let cases: Vec<Case> = cases
                .into_iter()
                .map(|pairs| Case { neighborhood: swapped(&pairs), paraphrase: pairs.clone(), rewrite: pairs })
                .collect();
            let s = Scores::of(&cases, RESAMPLES, STREAM);
            prop_assert_eq!((s.efficacy, s.efficacy_magnitude), (s.neighborhood, s.neighborhood_magnitude));
            prop_assert_eq!((s.efficacy, s.efficacy_magnitude), (s.paraphrase, s.paraphrase_magnitude));
        }

        #[test]
        fn the_order_of_cases_does_not_matter(
            (cases, shuffled) in prop::collection::vec(case(), 1..8)
                .prop_flat_map(|cases| (Just(cases.clone()), Just(cases).prop_shuffle())),
        ) {
            for (a, b) in values(&cases).into_iter().zip(values(&shuffled)) {
                prop_assert!((a.unwrap() - b.unwrap()).abs() < 1e-12);
            }
        }
    }
}
