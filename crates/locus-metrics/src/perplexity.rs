//! Perplexity of text, and how far an edit moves it on text that has nothing to do with the edit.

/// `exp(nll / tokens)` of the sum of the NLLs of all predicted tokens, in nats; `None` of no tokens or NaN.
///
/// ```
/// let fair_coin = locus_metrics::perplexity::perplexity(3.0 * 2.0_f64.ln(), 3).unwrap();
/// assert!((fair_coin - 2.0).abs() < 1e-15);
/// ```
pub fn perplexity(nll: f64, tokens: usize) -> Option<f64> {
    (tokens > 0).then(|| (nll / tokens as f64).exp()).filter(|perplexity| !perplexity.is_nan())
}

/// Perplexity of neutral text before and after an edit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drift {
    /// Perplexity before.
    pub before: f64,
    /// Perplexity after.
    pub after: f64,
    /// `after / before`: 1 is no drift, above 1 is damage.
    pub ratio: f64,
}

impl Drift {
    /// Drift between two `(sum of NLLs, number of tokens)`; `None` where a perplexity or the ratio is undefined.
    pub fn of(before: (f64, usize), after: (f64, usize)) -> Option<Self> {
        let (before, after) = (perplexity(before.0, before.1)?, perplexity(after.0, after.1)?);
        let ratio = after / before;
        (!ratio.is_nan()).then_some(Self { before, after, ratio })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn drift_agrees_with_the_formula() {
        let drift = Drift::of((5321.7, 1600), (5402.9, 1600)).unwrap();
        // exp(nll / tokens), evaluated in Python.
        assert!((drift.before - 27.82855077551794).abs() < 1e-12);
        assert!((drift.after - 29.27730082777274).abs() < 1e-12);
        assert!((drift.ratio - 1.0520598454422332).abs() < 1e-14);
    }

    #[test]
    fn what_is_undefined_is_none() {
        assert_eq!(perplexity(0.0, 0), None);
        assert_eq!(perplexity(f64::NAN, 3), None);
        assert_eq!(Drift::of((1.0, 1), (0.0, 0)), None);
        assert_eq!(Drift::of((f64::INFINITY, 1), (f64::INFINITY, 1)), None);
        // A model that calls the text impossible is infinitely worse.
        assert_eq!(Drift::of((0.0, 1), (f64::INFINITY, 1)).map(|drift| drift.ratio), Some(f64::INFINITY));
    }

    proptest! {
        #[test]
        fn drift_back_undoes_drift(a in 0.0..5000.0, b in 0.0..5000.0, tokens in 500usize..2000) {
            let (there, back) =
                (Drift::of((a, tokens), (b, tokens)).unwrap(), Drift::of((b, tokens), (a, tokens)).unwrap());
            prop_assert!((there.ratio * back.ratio - 1.0).abs() < 1e-12);
            prop_assert_eq!(there.ratio > 1.0, a < b);
            prop_assert!(there.before >= 1.0 && there.after >= 1.0);
        }

        #[test]
        fn the_same_text_twice_has_the_same_perplexity(nll in 0.0..5000.0, tokens in 500usize..2000) {
            prop_assert_eq!(perplexity(2.0 * nll, 2 * tokens), perplexity(nll, tokens));
        }
    }
}
