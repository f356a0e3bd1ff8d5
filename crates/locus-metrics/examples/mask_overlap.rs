//! Do two circuits share more than chance gives them? The same Jaccard index means opposite things at two densities.
//!
//! `cargo run -p locus-metrics --example mask_overlap`

use std::collections::BTreeSet;

use locus_metrics::overlap::Counts;

const PARAMETERS: usize = 1000;

/// A mask that keeps `kept` parameters from number `first` on.
fn mask(first: usize, kept: usize) -> BTreeSet<usize> {
    (first..first + kept).collect()
}

fn main() {
    let pairs = [
        ("5 %, a third shared", mask(0, 50), mask(25, 50)),
        ("50 %, a third shared", mask(0, 500), mask(250, 500)),
        ("50 %, most shared", mask(0, 500), mask(50, 500)),
    ];
    println!("{:<22} {:>7} {:>7} {:>6} {:>6}", "masks", "Jaccard", "chance", "lift", "kappa");
    let mut kappas = Vec::new();
    for (name, a, b) in &pairs {
        let counts = Counts::new(a.intersection(b).count(), a.len(), b.len(), PARAMETERS).expect("two masks");
        let [jaccard, chance, lift, kappa] =
            [counts.jaccard(), counts.expected_jaccard(), counts.lift(), counts.kappa()]
                .map(|x| x.expect("not empty"));
        println!("{name:<22} {jaccard:>7.3} {chance:>7.3} {lift:>6.2} {kappa:>6.3}");
        kappas.push(kappa);
    }
    // A Jaccard index of 1/3 is far above chance for masks of 5 % and exactly chance for masks of 50 %.
    assert!(kappas[0] > 0.4 && kappas[1].abs() < 1e-12 && kappas[2] > 0.7);
}
