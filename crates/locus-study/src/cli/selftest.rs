//! `locus selftest`: finds planted circuits on this machine, or checks a model on it.

use std::io::Write;

use anyhow::{Result, bail};
use clap::Args;
use locus_circuits::edges::{
    Attribution, Edge, EdgeSet, Faithfulness, LogitDiff, QuadratureRule, RankBy, StandardAblation,
    attribute_edges, auroc, patch_edges,
};
use locus_circuits::planted::{Planted, exclusive_or, induction, linear};

use super::global::Global;
use crate::protocol::selftest::check_model;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Selftest {
    /// Model to check: a folder, `organism`, or a fetched model [default: none, planted circuits are looked for]
    #[arg(long, value_name = "DIR|NAME")]
    model: Option<String>,
    /// Seed of the directions in which gradients are checked
    #[arg(long, default_value_t = 1, requires = "model")]
    seed: u64,
}

/// Largest relative difference between attribution and patching of a linear model: both add up the same few hundred
/// terms in f64, in different orders.
const EQUAL: f64 = 1e-9;
/// Smallest area under the ROC curve of the scores against the planted circuit.
const AREA: f64 = 0.99;
/// Largest difference of the recovered circuit's faithfulness from 1.
const UNFAITHFUL: f64 = 0.01;
/// Largest difference of the faithfulness of the circuit's complement from 0.
const COMPLEMENT: f64 = 0.05;

impl Selftest {
    pub fn run(&self, global: &Global) -> Result<()> {
        let (failures, what) = match &self.model {
            Some(model) => {
                let global = Global { model: model.clone(), ..global.clone() };
                (self.checks_of_model(&global)?, "checks of the model failed")
            }
            None => (planted_circuits()?, "planted circuits were not found"),
        };
        if failures > 0 {
            bail!("{failures} {what}");
        }
        Ok(())
    }

    /// Checks `--model` and returns the number of checks that failed.
    fn checks_of_model(&self, global: &Global) -> Result<usize> {
        let (mut failures, mut printed) = (0, Ok(()));
        check_model(&global.model_folder()?, rayon::current_num_threads(), self.seed, &mut |check| {
            let state = match check.passed {
                Some(true) => "ok",
                Some(false) => "FAILED",
                None => "-",
            };
            failures += usize::from(check.passed == Some(false));
            if printed.is_ok() {
                printed = print(state, &check.name, &check.detail);
            }
        })?;
        printed?;
        Ok(failures)
    }
}

/// A line of the report.
fn print(state: &str, name: &str, detail: &str) -> std::io::Result<()> {
    let mut out = super::output::stdout();
    writeln!(out, "{state:<6} {name:<16} {detail}")?;
    out.flush()
}

/// Looks for the planted circuits and returns the number of those not found.
fn planted_circuits() -> Result<usize> {
    let mut failures = 0;
    let mut report = |name: &str, passed: bool, detail: String| {
        failures += usize::from(!passed);
        print(if passed { "ok" } else { "FAILED" }, name, &detail)
    };
    let difference = linear_difference()?;
    let detail = format!("EAP and exact patching differ by {difference:.1e} of the largest effect");
    report("linear", difference <= EQUAL, detail)?;
    for planted in [induction(), exclusive_or()] {
        let found = Found::of(&planted)?;
        let passed = found.area >= AREA
            && (found.faithfulness - 1.0).abs() <= UNFAITHFUL
            && found.complement.abs() <= COMPLEMENT;
        let detail = format!(
            "EAP-IG: AUROC {:.4}, faithfulness {:.4} of the {} edges found, {:+.4} of all others",
            found.area,
            found.faithfulness,
            planted.truth.count(),
            found.complement
        );
        report(planted.name, passed, detail)?;
    }
    Ok(failures)
}

/// Largest difference between attribution and exact effect over the edges, relative to the largest effect.
fn linear_difference() -> Result<f64> {
    let Planted { model, pairs, truth, .. } = linear();
    let edges: Vec<Edge> = truth.graph().edges().collect();
    let exact = patch_edges(&model, &pairs, &LogitDiff, &StandardAblation::Corrupted, &edges)?;
    let eap = attribute_edges(&model, &pairs, &LogitDiff, Attribution::Eap, &StandardAblation::Corrupted)?;
    let largest = edges.iter().fold(0f64, |max, &edge| max.max(exact.get(edge).abs()));
    Ok(edges.iter().fold(0f64, |max, &edge| max.max((exact.get(edge) - eap.get(edge)).abs())) / largest)
}

struct Found {
    area: f64,
    faithfulness: f64,
    complement: f64,
}

impl Found {
    fn of(planted: &Planted) -> Result<Self> {
        let Planted { model, pairs, truth, .. } = planted;
        let method = Attribution::IgInputs(QuadratureRule::Midpoint, 20);
        let scores = attribute_edges(model, pairs, &LogitDiff, method, &StandardAblation::Corrupted)?;
        let faithfulness = |circuit: &EdgeSet| -> Result<f64> {
            let measured = Faithfulness::of(model, pairs, &LogitDiff, circuit, &StandardAblation::Corrupted)?;
            Ok(measured.normalised().unwrap_or(f64::NAN))
        };
        Ok(Found {
            area: auroc(&scores, truth, RankBy::Absolute),
            faithfulness: faithfulness(&scores.top_n(truth.count()).pruned())?,
            complement: faithfulness(&truth.complement())?,
        })
    }
}
