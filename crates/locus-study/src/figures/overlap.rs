//! Heat maps of the Jaccard index of every pair of tasks.

use std::collections::BTreeMap;

use crate::{
    records::Records,
    results::{Figure, Plot},
    tables::{
        TableOptions,
        overlap::{TaskPair, mean_over_tasks, pairs},
        select::{Density, distinct, distinct_tasks},
    },
};

pub(super) fn heat_maps(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    let pairs = pairs(records, preset);
    let at = |size: Density| {
        let of_size: Vec<&TaskPair> = pairs.iter().filter(|pair| pair.density == size).collect();
        heat_map(&of_size, size, preset, options)
    };
    distinct(pairs.iter().map(|pair| pair.density)).into_iter().filter_map(at).collect()
}

fn heat_map(pairs: &[&TaskPair], size: Density, preset: &str, options: &TableOptions) -> Option<Figure> {
    let tasks = distinct_tasks(pairs.iter().flat_map(|pair| [pair.tasks.0, pair.tasks.1]));
    let jaccard: BTreeMap<(&str, &str), f64> = pairs
        .iter()
        .flat_map(|pair| [(pair.tasks, pair.jaccard), ((pair.tasks.1, pair.tasks.0), pair.jaccard)])
        .collect();
    let row = |&a: &&str| tasks.iter().map(|&b| jaccard.get(&(a, b)).copied()).collect();
    let names: Vec<String> = tasks.iter().map(|task| task.to_string()).collect();
    // A scale that ends at a multiple of 0.1, so that figures of similar runs can be compared.
    let largest = pairs.iter().map(|pair| pair.jaccard).fold(0.0, f64::max);
    let plot = Plot::HeatMap {
        rows: names.clone(),
        columns: names,
        values: tasks.iter().map(row).collect(),
        max: ((largest * 10.0).ceil() / 10.0).max(0.1),
        unit: "Jaccard index".into(),
    };
    let over = |measure: fn(&TaskPair) -> f64, name: &str| {
        mean_over_tasks(pairs, measure, options, &format!("T5-overlap/{preset}/{}/{name}", size.label()))
    };
    let (observed, chance) = (over(|p| p.jaccard, "jaccard")?, over(|p| p.expected_matched, "expected")?);
    let caption = format!(
        "Jaccard index of the circuits of every pair of tasks; mean {:.3} [{:.3}, {:.3}]. Masks that \
         are independent within every tensor and class of |w| would have {:.3}.",
        observed.value, observed.low, observed.high, chance.value
    );
    let title = format!("Overlap of circuits of {} of the parameters", size.label());
    Some(Figure { id: format!("T5-overlap-{}", stem(size)), title, caption, plot })
}

/// A size as part of a file name: `5`, `12.5`.
fn stem(size: Density) -> String {
    format!("{}", (size.share() * 1e6).round() / 1e4)
}
