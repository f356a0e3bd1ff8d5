//! Scores of targets after prompts, from negative log-likelihoods (NLL: the mean over the tokens of a target, in nats).

/// Probability per token, `exp(-nll)`: the geometric mean over the tokens of a target.
///
/// ```
/// assert_eq!(locus_metrics::token::probability(0.0), 1.0);
/// ```
pub fn probability(nll: f64) -> f64 {
    (-nll).exp()
}

/// Whether the new target is strictly more probable than the true one.
pub fn beats(new_nll: f64, true_nll: f64) -> bool {
    new_nll < true_nll
}

/// Arithmetic mean; `None` of an empty slice.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn means_and_probabilities_by_hand() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
        assert!((probability(2.0_f64.ln()) - 0.5).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn one_of_two_beats_the_other(new in 0.0..20.0, old in 0.0..20.0) {
            prop_assume!(new != old);
            prop_assert!(beats(new, old) != beats(old, new));
            prop_assert!(!beats(new, new), "a tie is not a win");
        }
    }
}
