//! MEMIT on facts with one key: what it says of them, and what merging their values does.

use std::collections::BTreeMap;

use locus_editors::{Editor, Fact, Memit, MemitEditor, TargetOptimisation};
use locus_gpt2::Gpt2;

use crate::support::{covariance, fact, model};

/// An editor whose update writes each value nearly exactly.
fn memit(model: &Gpt2<f64>, merge: bool) -> MemitEditor {
    let layers = vec![0, 1];
    let covariances: BTreeMap<_, _> = layers.iter().map(|&layer| (layer, covariance(model, layer))).collect();
    let optimisation = TargetOptimisation { clamp: 2.0, ..Memit::default().optimisation };
    Memit { layers, lambda: 0.01, merge, optimisation, ..Memit::default() }.with(covariances).unwrap()
}

/// Another relation of a fact's subject: what follows the subject differs, and the target does.
fn other_relation(fact: &Fact, n: u32) -> Fact {
    let mut other = fact.clone();
    for context in &mut other.contexts {
        context.tokens.truncate(context.subject_last + 1);
        context.tokens.extend([n, n + 1]);
    }
    other.target = vec![n + 2];
    other
}

#[test]
fn facts_about_different_subjects_are_written_alike() {
    let model = model(3);
    let facts = [fact(1, 2), fact(2, 2), fact(7, 2)];
    let plain = memit(&model, false).edit(&model, &facts, None).unwrap();
    let merged = memit(&model, true).edit(&model, &facts, None).unwrap();
    assert_eq!(plain.patch, merged.patch, "to the bit");
    assert_eq!(plain.report, merged.report);
}

#[test]
fn facts_about_one_subject_share_a_value() {
    let model = model(3);
    let first = fact(1, 2);
    let facts = [first.clone(), other_relation(&first, 4), other_relation(&first, 9), fact(6, 2)];
    assert!(first.shares_subject(&facts[1]) && !first.shares_subject(&facts[3]));
    let left = |merge: bool| {
        let edit = memit(&model, merge).edit(&model, &facts, None).unwrap();
        let measures: BTreeMap<_, _> = edit.report.measures.iter().cloned().collect();
        measures["length of z - h after"]
    };
    let (plain_left, merged_left) = (left(false), left(true));
    assert!(merged_left < 0.5 * plain_left, "{merged_left} of {plain_left} is left to write");
}

#[test]
fn similar_keys_are_told() {
    let model = model(3);
    let first = fact(1, 2);
    let facts = [fact(6, 2), first.clone(), other_relation(&first, 4)];
    let pairs = |merge: bool| {
        Memit { layers: vec![0, 1], merge, ..Memit::default() }.similar_keys(&model, &facts, 0.99).unwrap()
    };
    let found = pairs(false);
    assert_eq!(found.iter().map(|pair| pair.facts).collect::<Vec<_>>(), [[1, 2]]);
    assert!(found[0].cosine > 0.999_999 && found[0].cosine <= 1.0, "{found:?}");
    assert!(pairs(true).is_empty(), "merged facts share their value");
}

#[test]
fn contradictory_facts_are_not_merged() {
    let model = model(3);
    let first = fact(1, 2);
    let second = Fact { target: vec![first.target[0] + 1], ..first.clone() };
    assert!(first.contradicts(&second) && !first.contradicts(&first));
    let why = memit(&model, true).edit(&model, &[first, second], None).unwrap_err().to_string();
    assert!(why.contains("different targets after one prompt"), "{why}");
}
