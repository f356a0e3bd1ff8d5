//! Compares two editors on the same facts: an interval for each, one for the difference, and a paired permutation test.
//!
//! `cargo run -p locus-metrics --example paired_comparison`

use locus_metrics::{Interval, Stream, bootstrap, paired};

/// Probability of the new target after the edit, fact by fact (made-up numbers).
const ROME: [f64; 12] = [0.98, 0.95, 0.99, 0.41, 0.97, 0.99, 0.93, 0.88, 0.96, 0.99, 0.72, 0.97];
const FINE_TUNING: [f64; 12] = [0.90, 0.91, 0.99, 0.45, 0.81, 0.97, 0.90, 0.62, 0.92, 0.98, 0.31, 0.95];

fn main() {
    let difference: Vec<f64> = ROME.iter().zip(&FINE_TUNING).map(|(a, b)| a - b).collect();
    let interval = |values: &[f64], name| {
        bootstrap::bootstrap_mean(values, bootstrap::RESAMPLES, Stream::named(1, name))
    };
    let rows = [
        ("ROME", interval(&ROME, "ROME")),
        ("fine-tuning", interval(&FINE_TUNING, "fine-tuning")),
        ("difference", interval(&difference, "difference")),
    ];
    println!("{:<12} {:>6}   95 % interval", "P(new)", "mean");
    for (name, Interval { value, low, high }) in rows {
        println!("{name:<12} {value:>6.3}   [{low:.3}, {high:.3}]");
    }
    let test = paired::sign_flip(&difference, Stream::named(1, "test"));
    println!("paired sign-flip test over {} facts: p = {:.4}", test.n, test.p_value);

    // The two intervals overlap, because facts differ from each other; the paired comparison takes that out.
    assert!(rows[0].1.low < rows[1].1.high && rows[2].1.low > 0.0);
    assert!(test.p_value < 0.05);
}
