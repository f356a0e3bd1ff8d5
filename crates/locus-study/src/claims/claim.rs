//! A published claim, the evidence that decides it, and numbers as text.

use locus_metrics::{Interval, paired::sign_flip_clustered};

use crate::{records::Records, tables::TableOptions};

/// A published claim and how it is decided.
pub(super) struct PublishedClaim {
    pub(super) id: &'static str,
    pub(super) claim: &'static str,
    pub(super) statistic: &'static str,
    pub(super) unit: &'static str,
    /// Range of the claim: when it holds, the effect lies strictly between these numbers.
    pub(super) claimed: (f64, f64),
    /// Tables whose records decide the claim.
    pub(super) needs: &'static str,
    /// Computes the evidence from the records of one preset; `None` when the records it needs are missing.
    pub(super) evidence: fn(&Records, &str, &TableOptions) -> Option<Evidence>,
}

/// Evidence on a claim: an effect with its interval, a p-value and a reading in words.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    pub(super) effect: Interval,
    pub(super) p_value: f64,
    /// Number of pairs or items that the effect was computed from.
    pub(super) n: usize,
    pub(super) reading: String,
}

impl Evidence {
    /// Evidence of a mean of paired differences, with interval and sign-flip test over clusters. The claim adds the
    /// reading.
    pub(super) fn of_differences<K: Ord>(
        differences: &[f64],
        clusters: &[K],
        options: &TableOptions,
        purpose: &str,
    ) -> Option<Self> {
        Some(Self {
            effect: options.mean(differences, clusters, purpose)?,
            p_value: sign_flip_clustered(differences, clusters, options.stream(&format!("{purpose}/flips")))
                .p_value,
            n: differences.len(),
            reading: String::new(),
        })
    }

    pub(super) fn reading(self, reading: String) -> Self {
        Self { reading, ..self }
    }

    pub(super) fn is_finite(&self) -> bool {
        [self.effect.value, self.effect.low, self.effect.high, self.p_value].iter().all(|x| x.is_finite())
    }
}

/// An interval with signs: `+0.123 [+0.100, +0.150]`.
pub(super) fn signed(interval: &Interval) -> String {
    format!("{:+.3} [{:+.3}, {:+.3}]", interval.value, interval.low, interval.high)
}

/// A p-value: `0.031`, `below 0.001`.
pub(super) fn p(value: f64) -> String {
    if value < 0.001 { "below 0.001".into() } else { format!("{value:.3}") }
}

/// A share: `61.2 %`.
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A probability: `0.0123`, `1.23e-5`.
pub(super) fn probability_text(value: f64) -> String {
    if value < 1e-3 { format!("{value:.2e}") } else { format!("{value:.4}") }
}
