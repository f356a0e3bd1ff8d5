//! The claim about overlap, C4: circuits of different tasks overlap moderately.

use std::collections::BTreeMap;

use locus_metrics::paired::sign_flip;

use super::claim::{Evidence, PublishedClaim, p, signed};
use crate::{
    records::Records,
    tables::{
        TableOptions,
        overlap::{TaskPair, mean_over_tasks, pairs},
        select::{Density, distinct, mean},
    },
};

pub(super) const C4: PublishedClaim = PublishedClaim {
    id: "C4",
    claim: "Circuits of different tasks overlap moderately.",
    statistic: "Jaccard index beyond chance, (J - E)/(1 - E) with E the index of masks that are independent \
                within every tensor, mean over pairs of tasks and sizes; interval by bootstrap over tasks, \
                sign-flip test over the tasks' means (approximate, since a pair enters the means of both its \
                tasks). Moderate: above 0 and below 0.5.",
    unit: "(0 = chance, 1 = same circuit)",
    claimed: (0.0, 0.5),
    needs: "T5",
    evidence: moderate_overlap,
};

fn moderate_overlap(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let pairs = pairs(records, preset);
    let all: Vec<&TaskPair> = pairs.iter().collect();
    let purpose = format!("C4/{preset}");
    let effect = mean_over_tasks(&all, |pair| pair.beyond_chance(), options, &purpose)?;
    let p_value = sign_flip(&task_means(&all), options.stream(&format!("{purpose}/flips"))).p_value;
    let sizes = distinct(all.iter().map(|pair| pair.density));
    let by_size: Vec<String> = sizes.into_iter().filter_map(|size| describe(&all, size)).collect();
    let reading = format!(
        "Mean Jaccard index, observed against independence within tensors, {}: beyond chance {} (0 = chance, \
         1 = same circuit; p {}).",
        by_size.join("; "),
        signed(&effect),
        p(p_value)
    );
    Some(Evidence { effect, p_value, n: all.len(), reading })
}

/// Overlap beyond chance of each task: the mean over the pairs that the task is part of.
fn task_means(pairs: &[&TaskPair]) -> Vec<f64> {
    let mut by_task: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for pair in pairs {
        for task in [pair.tasks.0, pair.tasks.1] {
            by_task.entry(task).or_default().push(pair.beyond_chance());
        }
    }
    by_task.into_values().filter_map(mean).collect()
}

fn describe(pairs: &[&TaskPair], size: Density) -> Option<String> {
    let over =
        |measure: fn(&TaskPair) -> f64| mean(pairs.iter().filter(|p| p.density == size).map(|p| measure(p)));
    Some(format!(
        "at {}: {:.3} against {:.3} (lift {:.2})",
        size.label(),
        over(|p| p.jaccard)?,
        over(|p| p.expected_stratified)?,
        over(|p| p.lift_stratified)?,
    ))
}
