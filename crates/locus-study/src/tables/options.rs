//! Options of tables, figures and claims: seed, resamples and names.

use locus_metrics::{Interval, Stream, bootstrap};

use crate::records::stream_name;

/// What tables, figures and claims need besides the records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Seed of the bootstrap and of the permutation tests.
    pub seed: u64,
    /// Number of bootstrap resamples.
    pub resamples: usize,
    /// Name of the model, for the notes.
    pub model: String,
    /// Name of the data, for the notes.
    pub data: String,
}

impl TableOptions {
    /// The random stream for one purpose, so that leaving a table out does not change the others.
    ///
    /// A purpose is a path such as `T2/scheduled-top-k/hierarchy/circuit`. The stream is named by the path with the
    /// former name of the preset (see [`stream_name`]).
    pub(crate) fn stream(&self, purpose: &str) -> Stream {
        let steps: Vec<&str> = purpose.split('/').map(stream_name).collect();
        Stream::named(self.seed, &steps.join("/"))
    }

    /// Mean with its bootstrap interval over clusters; `None` where there are no values.
    pub(crate) fn mean<K: Ord>(&self, values: &[f64], keys: &[K], purpose: &str) -> Option<Interval> {
        (!values.is_empty())
            .then(|| bootstrap::cluster_bootstrap_mean(values, keys, self.resamples, self.stream(purpose)))
    }

    /// Note that says where the numbers of a table were measured.
    pub(crate) fn source(&self) -> String {
        format!("Measured on {} with {}.", self.model, self.data)
    }

    /// Note that says what the intervals are.
    pub(crate) fn intervals(&self, over: &str) -> String {
        format!("Brackets: 95 % percentile bootstrap intervals over {over}, {} resamples.", self.resamples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renamed_preset_keeps_its_stream() {
        let options = TableOptions { seed: 3, resamples: 1, model: String::new(), data: String::new() };
        for (present, former) in [("published", "study"), ("scheduled-top-k", "faithful")] {
            let purpose = |preset: &str| format!("T2/{preset}/hierarchy/circuit/new");
            assert_eq!(options.stream(&purpose(present)), Stream::named(3, &purpose(former)));
        }
    }
}
