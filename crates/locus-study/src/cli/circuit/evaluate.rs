//! `locus circuit evaluate`: a circuit on disk, measured on pairs that it was not found on.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use locus_circuits::edges::{
    CircuitFile, EdgeScores, EdgeSet, Pair, RankBy, StandardAblation, StandardMetric,
};
use locus_gpt2::internal::write_atomically;
use locus_gpt2::{Checkpoint, ParamMask, Scalar};
use locus_metrics::Interval;
use serde_json::json;

use super::super::destination::{ending, is_same};
use super::super::discover::named;
use super::super::edge_count::EdgeCount;
use super::super::error::{OVERFLOW, Unusable, in_range};
use super::super::global::{Dtype, Global};
use super::super::output::{note, stdout};
use super::super::pair_source::{ModelPairs, PairSource};
use super::input::{Input, check_shape, is_mask, read};
use crate::protocol::{
    Areas, Bench, CircuitEvaluation, CircuitMeasures, EvaluationSettings, evaluate_edges, evaluate_mask,
    hold_out, pair_key,
};
use crate::report::{CircuitPage, MeasuredCircuit, circuit_page};

/// Largest number of draws and of removed edges.
const MOST: usize = 1_000_000;

#[derive(Debug, Args)]
#[group(skip)]
pub struct Evaluate {
    /// Circuit: .json of `discover`, EAP-IG or MIB, .csv, .dot, or a mask (.safetensors)
    #[arg(long, value_name = "FILE")]
    circuit: PathBuf,
    #[command(flatten)]
    source: PairSource,
    /// Pairs that are measured
    #[arg(long, value_enum, default_value_t = Part::HeldOut)]
    split: Part,
    /// Metric [default: that of the file, or of the task]
    #[arg(long, value_name = "METRIC")]
    #[arg(value_parser = named(StandardMetric::ALL, StandardMetric::name))]
    metric: Option<StandardMetric>,
    /// What an ablated edge carries [default: that of the file, or corrupted]
    #[arg(long, value_name = "ABLATION")]
    #[arg(value_parser = named(StandardAblation::ALL, StandardAblation::name))]
    ablation: Option<StandardAblation>,
    /// Edges of the circuit that is examined, as 48 or 10%, cut from the scores [default: the circuit that the file
    /// marks, or 10% where it marks none]
    #[arg(long, value_name = "N|P%")]
    edges: Option<EdgeCount>,
    /// Random rankings, random circuits, matched circuits and knock-outs
    #[arg(long, default_value_t = 5, value_name = "N")]
    draws: usize,
    /// Edges of the circuit that are removed one by one
    #[arg(long, default_value_t = 20, value_name = "N")]
    removals: usize,
    /// Also draw the circuit, with the curve and the controls, on one page
    #[arg(long, value_name = "FILE.html")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Pairs that the circuit was not found on; where the file does not say, half of all, by --seed
    HeldOut,
    /// Pairs that it was found on, or the other half
    Discovery,
    /// All
    All,
}

/// The pairs to measure, and how they were chosen.
struct Chosen {
    pairs: Vec<Pair>,
    /// In words.
    how: String,
}

impl Evaluate {
    pub fn run(&self, global: &Global) -> Result<()> {
        match global.dtype {
            Dtype::F32 => self.run_as::<f32>(global),
            Dtype::F64 => self.run_as::<f64>(global),
        }
    }

    fn run_as<F: Scalar>(&self, global: &Global) -> Result<()> {
        for (name, n) in [("--draws", self.draws), ("--removals", self.removals)] {
            if n > 0 {
                in_range(name, n, MOST)?;
            }
        }
        let inputs: Vec<_> = std::iter::once(self.circuit.as_path()).chain(self.source.file()).collect();
        global.check_out_file(&inputs)?;
        self.check_page(global, &inputs)?;
        let prompts = self.source.read()?;
        // Before the weights: a file that cannot be read is known at once.
        let input = read(&self.circuit, global)?;
        let Checkpoint { model, tokenizer } = global.checkpoint::<F>()?;
        let file = match &input {
            Input::Edges(file) => Some(file.as_ref()),
            Input::Mask(_) => None,
        };
        if let Some(file) = file {
            check_shape(&self.circuit, file.scores.graph(), model.config())?;
        }
        let (metric, ablation, bos) = self.conditions(file)?;
        let must_differ = file.is_some() && ablation == StandardAblation::Corrupted;
        let ModelPairs { pairs, skipped } =
            self.source.pairs(prompts, &tokenizer, model.config(), bos, must_differ)?;
        let Chosen { pairs, how } = self.choose(&pairs, file, global.seed)?;
        let bench = Bench { model: &model, pairs: &pairs, metric: metric.metric(), ablation: &ablation };
        let settings = EvaluationSettings { draws: self.draws, removals: self.removals, seed: global.seed };
        let display = global.progress();
        let mut stage = None;
        let mut progress = |done: usize, all: usize| {
            let stage = stage.get_or_insert_with(|| display.stage("circuits", all));
            if done <= all {
                stage.inc();
            }
        };
        let (found, drawn) = match &input {
            Input::Mask(mask) => {
                check_mask(self, mask, &model)?;
                (evaluate_mask(bench, mask, settings, &mut progress)?, None)
            }
            Input::Edges(file) => {
                if let Some(stated) = file.provenance.get("model_sha256").and_then(|stated| stated.as_str())
                    && !model.has_sha256(stated)
                {
                    note(&format!("{}: was found on other weights", self.circuit.display()));
                }
                let ranking = file.ranks().then_some(&file.scores);
                let circuit = self.examined(file, ranking)?;
                let found = evaluate_edges(bench, ranking, Some(&circuit), settings, &mut progress)?;
                (found, Some(CircuitFile { circuit, ..CircuitFile::clone(file) }))
            }
        };
        if let Some(stage) = stage {
            stage.finish();
        }
        check_finite(&found)?;
        let about = json!({
            "circuit": self.circuit.file_name().map(|name| name.to_string_lossy().into_owned()),
            "circuit_sha256": locus_files::sha256_file(&self.circuit).with_context(|| self.circuit.display().to_string())?,
            "pairs": self.source.provenance()?, "measured_on": how,
            "metric": metric.name(), "ablation": if file.is_some() { ablation.name() } else { "zero weights" },
            "bos": bos, "draws": self.draws, "seed": global.seed, "model_sha256": model.sha256(),
            "version": env!("CARGO_PKG_VERSION"),
        });
        let report = json!({ "provenance": about, "evaluation": found });
        if let Some(out) = &global.out {
            write_atomically(out, (serde_json::to_string_pretty(&report)? + "\n").as_bytes())?;
        }
        if let (Some(path), Some(file), Some(circuit)) = (&self.html, &drawn, &found.circuit) {
            let pairs = format!("{} pairs: {how}", found.pairs);
            let measured = MeasuredCircuit {
                pairs: &pairs,
                metric: metric.name(),
                ablation: ablation.name(),
                clean: found.clean.value,
                empty: found.empty.value,
                circuit: circuit.metric,
                faithfulness: circuit.faithfulness,
            };
            let (model, task) = (&global.model_name(), &self.source.title());
            let evaluation = Some((&found, &report["provenance"]));
            let page = circuit_page(&CircuitPage { model, task, file, measured, evaluation });
            write_atomically(path, page.as_bytes())?;
        }
        let mut out = stdout();
        if global.json {
            writeln!(out, "{report}")?;
            if let Some(skipped) = skipped.json() {
                writeln!(out, "{}", json!({ "skipped": skipped }))?;
            }
            return Ok(());
        }
        writeln!(
            out,
            "{} on {} pairs of {}: {how}",
            self.circuit.display(),
            found.pairs,
            self.source.described()
        )?;
        print(&mut out, &found, metric.name())
    }

    /// Checks that the page can be written, and that there are edges to draw.
    fn check_page(&self, global: &Global, inputs: &[&Path]) -> Result<()> {
        let Some(page) = &self.html else { return Ok(()) };
        ending("--html", page, &["html"])?;
        global.check_file("--html", page, inputs)?;
        if global.out.as_ref().is_some_and(|out| is_same(out, page)) {
            return Err(Unusable("--out and --html name one file; expected two".into()).into());
        }
        if is_mask(&self.circuit) {
            let why = "--html has no effect: a mask has no edges to draw; expected a circuit of edges, which `circuit \
                       convert` makes of it";
            return Err(Unusable(why.into()).into());
        }
        Ok(())
    }

    /// Metric, ablation and whether the end-of-text token stands first: as asked for, or as the circuit was found.
    fn conditions(&self, file: Option<&CircuitFile>) -> Result<(StandardMetric, StandardAblation, bool)> {
        let conventions = file.and_then(|file| file.conventions.as_ref());
        let metric = match (self.metric, conventions) {
            (Some(metric), _) => metric,
            (None, Some(conventions)) => conventions.metric.parse().unwrap_or(self.source.metric()),
            (None, None) => self.source.metric(),
        };
        let ablation = match (self.ablation, conventions) {
            (Some(ablation), _) => ablation,
            (None, Some(conventions)) => conventions.ablation.parse().unwrap_or(StandardAblation::Corrupted),
            (None, None) => StandardAblation::Corrupted,
        };
        if file.is_none() && self.ablation.is_some() {
            let why = "--ablation has no effect: the weights outside of a mask are zero";
            return Err(Unusable(why.into()).into());
        }
        Ok((metric, ablation, self.source.bos || conventions.is_some_and(|conventions| conventions.bos)))
    }

    fn choose(&self, pairs: &[Pair], file: Option<&CircuitFile>, seed: u64) -> Result<Chosen> {
        let all = pairs.len();
        if self.split == Part::All {
            return Ok(Chosen {
                pairs: pairs.to_vec(),
                how: format!("all {all}, whatever the circuit was found on"),
            });
        }
        let stated = file.and_then(|file| file.provenance.get("split")?.get("found_on")?.as_array());
        let (found_on, held_out, known): (Vec<Pair>, Vec<Pair>, bool) = match stated {
            Some(keys) => {
                let is_known = |pair: &&Pair| {
                    let key = pair_key(pair);
                    keys.iter().any(|stated| stated.as_str() == Some(key.as_str()))
                };
                let (found_on, held_out): (Vec<&Pair>, Vec<&Pair>) = pairs.iter().partition(is_known);
                (found_on.into_iter().cloned().collect(), held_out.into_iter().cloned().collect(), true)
            }
            None => {
                let (found_on, held_out) = hold_out(pairs, 0.5, seed);
                (found_on, held_out, false)
            }
        };
        let others = if self.split == Part::HeldOut { found_on.len() } else { held_out.len() };
        let (chosen, name) =
            if self.split == Part::HeldOut { (held_out, "held-out") } else { (found_on, "discovery") };
        if chosen.is_empty() {
            let why = format!(
                "{}: none of the {all} pairs is a {name} pair; expected other pairs, or --split all",
                self.circuit.display()
            );
            return Err(Unusable(why).into());
        }
        let how = match (known, self.split) {
            (true, Part::HeldOut) => format!("held out, the circuit was found on {others} others of them"),
            (true, _) => format!("those that the circuit was found on, {others} held out"),
            (false, _) => format!(
                "one half by seed {seed}, {others} in the other; the file does not say on which pairs it was found"
            ),
        };
        Ok(Chosen { pairs: chosen, how })
    }

    /// The circuit that is examined besides the curve.
    fn examined(&self, file: &CircuitFile, ranking: Option<&EdgeScores>) -> Result<EdgeSet> {
        let graph = file.scores.graph();
        let marked = file.circuit.count();
        let place = self.circuit.display();
        let cut = |scores: &EdgeScores, n: usize| EdgeSet::top_n(scores, n, RankBy::Absolute).pruned();
        match (self.edges, ranking) {
            (Some(_), None) => {
                let why = format!("{place}: has no scores that rank edges, so --edges cannot cut a circuit");
                Err(Unusable(why).into())
            }
            (Some(count), Some(scores)) => Ok(cut(scores, count.of(graph.n_edges())?)),
            (None, _) if marked > 0 && marked < graph.n_edges() => Ok(file.circuit.clone()),
            (None, Some(scores)) => Ok(cut(scores, graph.n_edges().div_ceil(10))),
            (None, None) => {
                let why = format!(
                    "{place}: marks {marked} of {} edges and has no scores that rank them; expected a circuit or a ranking",
                    graph.n_edges()
                );
                Err(Unusable(why).into())
            }
        }
    }
}

/// Checks what a mask can be asked, and that it is one of this model.
fn check_mask<F: Scalar>(args: &Evaluate, mask: &ParamMask, model: &locus_gpt2::Gpt2<F>) -> Result<()> {
    debug_assert!(is_mask(&args.circuit));
    if args.edges.is_some() {
        return Err(Unusable("--edges has no effect: a mask has no scores".into()).into());
    }
    Ok(mask.check(model.config())?)
}

/// Fails when a mean of the metric is not a number.
fn check_finite(found: &CircuitEvaluation) -> Result<()> {
    let measured = [found.clean.value, found.empty.value];
    let circuit = found.circuit.as_ref().map(|circuit| circuit.metric);
    match measured.into_iter().chain(circuit).find(|value| !value.is_finite()) {
        Some(value) => anyhow::bail!("the metric is {value}; {OVERFLOW}"),
        None => Ok(()),
    }
}

fn print(out: &mut dyn Write, found: &CircuitEvaluation, metric: &str) -> Result<()> {
    let CircuitEvaluation { clean, empty, preferred, .. } = found;
    writeln!(
        out,
        "{metric}: full model {}, everything ablated {}; above 0 on {:.0} % of the pairs",
        shown(Some(*clean)),
        shown(Some(*empty)),
        100.0 * preferred
    )?;
    if let Some(why) = &found.undefined {
        writeln!(out, "faithfulness is undefined: {why}")?;
    }
    if !found.curve.is_empty() {
        writeln!(
            out,
            "\n{:>7} {:>8} {:>8}  {:<23} {:<23} {:<23} {:<23}",
            "edges",
            "selected",
            "left",
            "F by |score|",
            "F by score",
            "F of the complement",
            "F of random circuits"
        )?;
        for size in &found.curve {
            writeln!(
                out,
                "{:>6}% {:>8} {:>8}  {:<23} {:<23} {:<23} {:<23}",
                100.0 * size.share,
                size.selected,
                size.edges_absolute,
                shown(size.absolute),
                shown(size.signed),
                shown(size.complement),
                shown(size.random)
            )?;
        }
    }
    if let Some(Areas { cpr, cmd, cmd_log }) = found.areas {
        writeln!(out)?;
        let random = found.random_areas;
        for (name, area, control) in [
            ("CPR, by score", cpr, random.map(|areas| areas.cpr)),
            ("CMD, by |score|", cmd, random.map(|areas| areas.cmd)),
            ("CMD, log axis", cmd_log, random.map(|areas| areas.cmd_log)),
        ] {
            writeln!(out, "{name:<18} {:<23} random {}", shown(Some(area)), shown(control))?;
        }
    }
    if let Some(circuit) = &found.circuit {
        print_circuit(out, circuit)?;
    }
    Ok(())
}

fn print_circuit(out: &mut dyn Write, circuit: &CircuitMeasures) -> Result<()> {
    writeln!(
        out,
        "\ncircuit: {} ({:.2} % of all), metric {:.4}",
        circuit.size,
        100.0 * circuit.share,
        circuit.metric
    )?;
    for (name, measure) in [
        ("faithfulness", circuit.faithfulness),
        ("of the complement", circuit.complement),
        ("random, same size", circuit.random),
        ("same kinds", circuit.matched),
        ("incompleteness", circuit.incompleteness),
    ] {
        writeln!(out, "{name:<18} {}", shown(measure))?;
    }
    let removals = &circuit.removals;
    if let [first, .., last] = &removals[..] {
        let useless = removals.iter().filter(|removal| removal.drop <= 0.0).count();
        writeln!(
            out,
            "minimality         {useless} of {} edges removed one by one lower nothing; largest fall {:.4} ({}), \
             smallest {:.4} ({})",
            removals.len(),
            first.drop,
            first.edge,
            last.drop,
            last.edge
        )?;
    }
    Ok(())
}

/// A value with its interval.
fn shown(measure: Option<Interval>) -> String {
    measure.map_or_else(
        || "undefined".to_owned(),
        |Interval { value, low, high }| format!("{value:.3} [{low:.3}, {high:.3}]"),
    )
}
