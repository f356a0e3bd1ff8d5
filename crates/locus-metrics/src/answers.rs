//! Does a model answer with the target? Comparisons of token sequences, and the scores of zsRE.
//!
//! Three measures of one answer, from lenient to strict:
//!
//! | measure | the model sees | it counts |
//! |---|---|---|
//! | [`token_accuracy`] | prompt and target (teacher forcing) | target tokens that are the arg max |
//! | [`all_correct`] | the same | whether all of them are |
//! | [`exact_match`] | the prompt only, and generates | whether the text starts with the target |
//!
//! Under teacher forcing a wrong token does not mislead the next one, which makes long answers look better than
//! what the model would say.
//!
//! Sources: zsRE as in ROME (Meng et al. 2022, arXiv:2202.05262, section 3.2); all-correct from MEMIT (Meng et
//! al. 2023, arXiv:2210.07229); locality from EasyEdit (Wang et al. 2023, arXiv:2308.07269).

use crate::{
    Interval, Stream,
    run::{harmonic_mean_over, mean_over},
    token::mean,
};

/// Per-token accuracy under teacher forcing, of the arg max tokens at the positions of a target and the target:
/// zsRE's measure, and EasyEdit's `rewrite_acc` and `rephrase_acc`.
///
/// ```
/// assert_eq!(locus_metrics::answers::token_accuracy(&[262, 11, 287], &[262, 13, 287]), Some(2.0 / 3.0));
/// ```
///
#[doc(inline)]
pub use crate::classify::accuracy as token_accuracy;

/// EasyEdit's locality: of the arg max tokens after and before an edit, at the positions of the answer to an
/// unrelated prompt. The answer itself need not be right.
///
#[doc(inline)]
pub use crate::classify::agreement as locality;

/// Whether every target token is the arg max under teacher forcing (MEMIT's `*_correct`); `None` of an empty
/// target.
///
/// # Panics
/// If the lengths differ.
pub fn all_correct<T: PartialEq>(predicted: &[T], target: &[T]) -> Option<bool> {
    token_accuracy(predicted, target).map(|share| share == 1.0)
}

/// Whether freely generated tokens (without the prompt) start with the target; `None` of an empty target.
///
/// ```
/// use locus_metrics::answers::exact_match;
/// assert_eq!(exact_match(&["New", "York", "City"], &["New", "York"]), Some(true));
/// assert_eq!(exact_match(&["New"], &["New", "York"]), Some(false));
/// ```
pub fn exact_match<T: PartialEq>(generated: &[T], target: &[T]) -> Option<bool> {
    (!target.is_empty()).then(|| generated.starts_with(target))
}

/// Accuracies after the edit of one request, one per prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Case {
    /// [`token_accuracy`] of the question that was edited.
    pub rewrite: Vec<f64>,
    /// [`token_accuracy`] of the question in other words.
    pub paraphrase: Vec<f64>,
    /// [`token_accuracy`] of unrelated questions, against their true answers.
    pub neighborhood: Vec<f64>,
}

/// zsRE's scores of a run, means over cases of the means over a case's prompts; `None` where no case has prompts.
///
/// Specificity measures damage poorly: before any edit GPT-2 XL answers only a quarter of the unrelated questions'
/// tokens. [`locality`] does not depend on what the model knew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scores {
    /// Mean accuracy of the edited questions.
    pub efficacy: Option<Interval>,
    /// Mean accuracy of their paraphrases.
    pub paraphrase: Option<Interval>,
    /// Mean accuracy of unrelated questions.
    pub specificity: Option<Interval>,
    /// Harmonic mean of the three; 0 if one of them is.
    pub score: Option<Interval>,
}

impl Scores {
    /// Scores of a run, with intervals from the same resamples of cases for all of them.
    ///
    /// A case without prompts of a kind is left out of the score of that kind.
    ///
    /// # Panics
    /// If there are cases but no resamples.
    pub fn of(cases: &[Case], resamples: usize, stream: Stream) -> Self {
        let per_case = |kind: fn(&Case) -> &[f64]| cases.iter().map(|case| mean(kind(case))).collect::<Vec<_>>();
        let efficacy = per_case(|case| &case.rewrite);
        let paraphrase = per_case(|case| &case.paraphrase);
        let specificity = per_case(|case| &case.neighborhood);
        Self {
            efficacy: mean_over(&efficacy, resamples, stream),
            paraphrase: mean_over(&paraphrase, resamples, stream),
            specificity: mean_over(&specificity, resamples, stream),
            score: harmonic_mean_over([&efficacy, &paraphrase, &specificity], resamples, stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: Stream = Stream::new(4, 2);

    fn values(cases: &[Case]) -> [Option<f64>; 4] {
        let s = Scores::of(cases, 20, STREAM);
        [s.efficacy, s.paraphrase, s.specificity, s.score].map(|interval| interval.map(|i| i.value))
    }

    #[test]
    fn answers_by_hand() {
        assert_eq!(all_correct(&[1, 2, 3], &[1, 2, 3]), Some(true));
        assert_eq!(all_correct(&[1, 2, 4], &[1, 2, 3]), Some(false));
        assert_eq!(exact_match(&[1, 2, 4], &[1, 2]), Some(true));
        assert_eq!(exact_match(&[4, 1, 2], &[1, 2]), Some(false));
        assert_eq!((all_correct::<u8>(&[], &[]), exact_match(&[1], &[])), (None, None));
    }

    #[test]
    fn scores_agree_with_the_formulas() {
        let case = |rewrite: f64, paraphrase: &[f64], neighborhood: &[f64]| Case {
            rewrite: vec![rewrite],
            paraphrase: paraphrase.to_vec(),
            neighborhood: neighborhood.to_vec(),
        };
        let cases = [
            case(2.0 / 3.0, &[1.0 / 3.0], &[1.0, 0.0, 0.0, 1.0]),
            case(1.0, &[0.5, 0.75], &[0.0, 1.0]),
            case(0.5, &[], &[0.25]),
        ];
        // Means of means and their harmonic mean, evaluated in Python.
        let expected = [0.7222222222222222, 0.47916666666666663, 0.4166666666666667, 0.5109364319890636];
        for (value, expected) in values(&cases).into_iter().zip(expected) {
            assert!((value.unwrap() - expected).abs() < 1e-14, "{value:?} for {expected}");
        }
        assert_eq!(values(&[case(1.0, &[0.5], &[])]), [Some(1.0), Some(0.5), None, None]);
        assert_eq!(values(&[]), [None; 4]);
    }

    /// Tokens of a small vocabulary, so that equal ones are frequent.
    fn tokens(length: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(0u8..3, length)
    }

    fn case() -> impl Strategy<Value = Case> {
        let accuracies = || prop::collection::vec(0.0..=1.0, 1..4);
        (accuracies(), accuracies(), accuracies()).prop_map(|(rewrite, paraphrase, neighborhood)| Case {
            rewrite,
            paraphrase,
            neighborhood,
        })
    }

    proptest! {
        #[test]
        fn all_are_correct_exactly_if_the_sequences_are_equal(
            (predicted, target) in (1usize..6).prop_flat_map(|n| (tokens(n), tokens(n))),
        ) {
            prop_assert_eq!(all_correct(&predicted, &target), Some(predicted == target));
            // Of as many tokens as the target has, free and forced answers are judged alike.
            prop_assert_eq!(exact_match(&predicted, &target), Some(predicted == target));
        }

        #[test]
        fn text_after_the_target_does_not_matter(target in (1usize..6).prop_flat_map(tokens), rest in tokens(4)) {
            let generated = [target.clone(), rest].concat();
            prop_assert_eq!(exact_match(&generated, &target), Some(true));
            prop_assert_eq!(exact_match(&target, &generated), Some(false));
        }

        #[test]
        fn the_score_lies_among_its_parts_in_any_order(
            (cases, shuffled) in prop::collection::vec(case(), 1..8)
                .prop_flat_map(|cases| (Just(cases.clone()), Just(cases).prop_shuffle())),
        ) {
            let [a, b, c, score] = values(&cases).map(Option::unwrap);
            prop_assert!(score >= a.min(b).min(c) - 1e-12);
            prop_assert!(score <= (a + b + c) / 3.0 + 1e-12);
            for (here, there) in values(&cases).into_iter().zip(values(&shuffled)) {
                prop_assert!((here.unwrap() - there.unwrap()).abs() < 1e-12);
            }
        }
    }
}
