//! Scores of targets after prompts, from negative log-likelihoods (NLL: mean per target token, in nats).

/// Probability per token: `exp(-nll)`, the geometric mean over the tokens of a target.
///
/// ```
/// assert_eq!(locus_metrics::token::probability(0.0), 1.0);
/// ```
pub fn probability(nll: f64) -> f64 {
    (-nll).exp()
}

/// Arithmetic mean; `None` of nothing.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// Mean of the probabilities, which is not the probability of the mean NLL (it is at least as large).
pub fn mean_probability(nlls: &[f64]) -> Option<f64> {
    mean(&nlls.iter().map(|&nll| probability(nll)).collect::<Vec<_>>())
}

/// Whether the new target is strictly more probable than the true one.
pub fn beats(new_nll: f64, true_nll: f64) -> bool {
    new_nll < true_nll
}

/// Share of `(new, true)` pairs of NLLs in which the new target beats the true one; `None` of nothing.
pub fn beats_share(pairs: &[(f64, f64)]) -> Option<f64> {
    mean(&pairs.iter().map(|&(new, old)| f64::from(u8::from(beats(new, old)))).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shares_and_means_by_hand() {
        assert_eq!(mean(&[1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean(&[]), None);
        assert_eq!(mean_probability(&[]), None);
        // A tie is not a win.
        assert_eq!(beats_share(&[(1.0, 2.0), (2.0, 1.0), (1.0, 1.0), (0.5, 0.6)]), Some(0.5));
        assert!((probability(2.0_f64.ln()) - 0.5).abs() < 1e-15);
    }

    proptest! {
        #[test]
        fn averaging_probabilities_gives_at_least_that_of_the_mean(
            nlls in prop::collection::vec(0.0..20.0, 1..40),
        ) {
            let jensen = probability(mean(&nlls).unwrap());
            prop_assert!(mean_probability(&nlls).unwrap() >= jensen * (1.0 - 1e-12));
        }

        #[test]
        fn one_of_two_beats_the_other(new in 0.0..20.0, old in 0.0..20.0) {
            prop_assume!(new != old);
            prop_assert!(beats(new, old) != beats(old, new));
        }
    }
}
