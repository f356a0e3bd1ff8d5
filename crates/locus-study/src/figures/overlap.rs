//! Heat maps of overlap: the Jaccard index of every pair of tasks, and its mean beyond chance by families of tasks.

use std::collections::BTreeMap;

use crate::{
    records::Records,
    results::{Figure, Plot},
    tables::{
        TableOptions,
        overlap::{TaskPair, mean_over_tasks, pairs},
        select::{Density, distinct, distinct_tasks, family, mean},
    },
};

pub(super) fn heat_maps(records: &Records, preset: &str, options: &TableOptions) -> Vec<Figure> {
    let pairs = pairs(records, preset);
    let at = |size: Density| {
        let of_size: Vec<&TaskPair> = pairs.iter().filter(|pair| pair.density == size).collect();
        [heat_map(&of_size, size, preset, options), family_map(&of_size, size)]
    };
    distinct(pairs.iter().map(|pair| pair.density)).into_iter().flat_map(at).flatten().collect()
}

/// Mean overlap beyond matched masks within and between families; `None` where no family has two tasks.
fn family_map(pairs: &[&TaskPair], size: Density) -> Option<Figure> {
    let mut of_families: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        let (a, b) = (family(pair.tasks.0), family(pair.tasks.1));
        for key in distinct([(a, b), (b, a)].into_iter()) {
            of_families.entry(key).or_default().push(pair.beyond_matched());
        }
    }
    let families = distinct(of_families.keys().map(|(a, _)| *a));
    let within = families.iter().any(|name| of_families.contains_key(&(*name, *name)));
    let value = |a: &str, b: &str| mean(of_families.get(&(a, b))?.iter().copied());
    let values: Vec<Vec<Option<f64>>> =
        families.iter().map(|a| families.iter().map(|b| value(a, b)).collect()).collect();
    let largest = values.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let names: Vec<String> = families.iter().map(|name| (*name).to_owned()).collect();
    let caption = "Mean over pairs of tasks, within families of tasks (diagonal) and between them. 0 is what masks share \
                   that are independent within every tensor and class of |w|, 1 is the same circuit.";
    within.then(|| Figure {
        id: format!("T5-families-{}", size.stem()),
        title: format!("Overlap beyond chance by families, circuits of {}", size.label()),
        caption: caption.into(),
        plot: Plot::HeatMap {
            rows: names.clone(),
            columns: names,
            values,
            max: ((largest * 10.0).ceil() / 10.0).max(0.1),
            unit: "overlap beyond matched".into(),
        },
    })
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
    Some(Figure { id: format!("T5-overlap-{}", size.stem()), title, caption, plot })
}
