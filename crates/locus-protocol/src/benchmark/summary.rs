//! The results of a benchmark: the value of every measure for every request, and their means with intervals.

use std::collections::BTreeMap;

use locus_metrics::bootstrap::{RESAMPLES, cluster_bootstrap_mean};
use locus_metrics::editing::score_in_clusters;
use locus_metrics::{Interval, Stream};
use serde::Serialize;
use serde_json::Value;

use super::case::ProbeKind;
use super::measures::{Judged, MEASURES, SCORES};

/// A mean over requests with its 95 % interval, for which whole subjects are resampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Mean, or harmonic mean of means, with its interval.
    #[serde(flatten)]
    pub interval: Interval,
    /// Requests that have a value.
    pub n: usize,
}

/// One request in the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CaseSummary {
    /// Number of the request.
    pub case_id: u64,
    /// Why the editor refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// Optimiser steps taken.
    pub steps: usize,
    /// Value of each measure that the request has, by key.
    pub values: BTreeMap<&'static str, f64>,
    /// Mean NLLs per token `[new, true]` after the rewriting prompt, then paraphrases, then neighbours.
    pub nll: Vec<Vec<f64>>,
    /// Generated texts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub texts: Vec<String>,
}

/// An editor in the results.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct EditorSummary {
    /// Name; `unedited` for the model as it was.
    pub editor: String,
    /// Constants; null for the unedited model.
    pub constants: Value,
    /// Number of edits that the editor refused.
    pub refused: usize,
    /// Mean of each measure, by key.
    pub measures: BTreeMap<&'static str, Estimate>,
    /// The requests.
    pub requests: Vec<CaseSummary>,
}

impl CaseSummary {
    /// Every measure of a request.
    pub fn new(judged: &Judged, refused: Option<String>, steps: usize) -> Self {
        let values = MEASURES.iter().filter_map(|measure| Some((measure.key, measure.value(judged)?)));
        let asked = judged.case.probes.iter().zip(&judged.after.answers);
        let own =
            asked.filter(|(probe, _)| !matches!(probe.kind, ProbeKind::Locality | ProbeKind::Portability));
        CaseSummary {
            case_id: judged.case.case_id,
            refused,
            steps,
            values: values.collect(),
            nll: own.map(|(_, answer)| answer.nll.clone()).collect(),
            texts: judged.after.texts.clone(),
        }
    }
}

impl EditorSummary {
    /// Means over requests. `subjects` has the subject of each request, `seed` is that of the resampling.
    ///
    /// # Panics
    /// When there are not as many subjects as requests.
    pub fn new(
        editor: &str,
        constants: Value,
        requests: Vec<CaseSummary>,
        subjects: &[&str],
        seed: u64,
    ) -> Self {
        assert_eq!(requests.len(), subjects.len(), "one subject per request");
        // Resamples are those of the measure, not of the editor: editors are compared on the same draws.
        let stream = |key: &str| Stream::named(seed, &format!("benchmark/{key}"));
        let mut measures = BTreeMap::new();
        for key in MEASURES.iter().map(|measure| measure.key) {
            let of = requests
                .iter()
                .zip(subjects)
                .filter_map(|(request, &s)| Some((*request.values.get(key)?, s)));
            let (values, keys): (Vec<f64>, Vec<&str>) = of.unzip();
            if !values.is_empty() {
                let interval = cluster_bootstrap_mean(&values, &keys, RESAMPLES, stream(key));
                measures.insert(key, Estimate { interval, n: values.len() });
            }
        }
        for score in &SCORES {
            let rows: Vec<[Option<f64>; 3]> =
                requests.iter().map(|request| score.of.map(|key| request.values.get(key).copied())).collect();
            if let Some(interval) = score_in_clusters(&rows, subjects, RESAMPLES, stream(score.key)) {
                let n = rows.iter().filter(|row| row.iter().any(Option::is_some)).count();
                measures.insert(score.key, Estimate { interval, n });
            }
        }
        let refused = requests.iter().filter(|request| request.refused.is_some()).count();
        EditorSummary { editor: editor.to_owned(), constants, refused, measures, requests }
    }
}
