//! Several runs of the study side by side: how far verdicts and effects vary over seeds.

use std::collections::BTreeMap;
use std::fmt::Write;

use locus_metrics::token::mean;
use serde::Serialize;

use crate::results::{Claim, ClaimRow, Results, Verdict};

/// What several runs say together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Aggregate {
    /// The runs, in the order given.
    pub runs: Vec<RunInfo>,
    /// The claims, in order.
    pub claims: Vec<ClaimAggregate>,
}

/// The provenance of one run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunInfo {
    /// Where its results were read.
    pub place: String,
    /// Seed of the run.
    pub seed: u64,
    /// Name of the model.
    pub model: String,
    /// SHA-256 of the model's weights.
    pub model_sha256: String,
    /// Verdicts on the claims, in order.
    pub verdicts: Vec<Verdict>,
}

/// One claim over several runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClaimAggregate {
    /// `C1` ... `C7`.
    pub id: String,
    /// The published claim, as this project reads it.
    pub claim: String,
    /// Number of runs with each verdict; verdicts that no run has are left out.
    pub verdicts: Vec<(Verdict, usize)>,
    /// Every comparison, those that decide first, in the order of the run that has it first.
    pub rows: Vec<RowAggregate>,
}

/// One comparison over several runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RowAggregate {
    /// Recipe of the circuits.
    pub recipe: String,
    /// The part of the claim that the row is about.
    pub part: String,
    /// The measure.
    pub measure: String,
    /// What the circuits are held against.
    pub against: String,
    /// Size of the circuits, empty where sizes play no part.
    pub size: String,
    /// Kind of edit, empty where nothing was edited.
    pub edit: String,
    /// Unit of the effect.
    pub unit: String,
    /// Whether the row is one of those that decide.
    pub decides: bool,
    /// Number of runs that have the row.
    pub runs: usize,
    /// Mean effect of the runs.
    pub mean: f64,
    /// Standard deviation of the effect over the runs (n - 1 in the denominator); `None` of a single run.
    pub sd: Option<f64>,
    /// Smallest effect.
    pub min: f64,
    /// Largest effect.
    pub max: f64,
    /// Number of runs with each verdict on the row; verdicts that no run has are left out.
    pub verdicts: Vec<(Verdict, usize)>,
}

/// Puts runs together. Each comes with the place it was read from.
///
/// # Errors
/// A message when there is no run, when runs differ in version or profile, so that their numbers do not mean the same,
/// or when one run is given twice.
pub fn aggregate(runs: &[(String, Results)]) -> Result<Aggregate, String> {
    let (first_place, first) = runs.first().ok_or("no run was given; expected at least one")?;
    for (i, (place, run)) in runs.iter().enumerate() {
        let (here, there) = (&run.provenance, &first.provenance);
        for (what, here, there) in
            [("version", &here.version, &there.version), ("profile", &here.profile, &there.profile)]
        {
            if here != there {
                return Err(format!(
                    "{place}: {what} is {here}, and that of {first_place} is {there}; expected the same"
                ));
            }
        }
        if let Some((earlier, _)) = runs[..i].iter().find(|(_, earlier)| earlier.provenance == run.provenance)
        {
            return Err(format!("{place}: is the same run as {earlier}; expected each run once"));
        }
    }
    let ids: Vec<&str> = first.claims.iter().map(|claim| claim.id.as_str()).collect();
    let claims = ids.iter().map(|id| {
        let of_runs = runs.iter().filter_map(|(_, run)| run.claims.iter().find(|claim| claim.id == *id));
        claim(&of_runs.collect::<Vec<_>>())
    });
    let info = |(place, run): &(String, Results)| RunInfo {
        place: place.clone(),
        seed: run.provenance.seed,
        model: run.provenance.model.clone(),
        model_sha256: run.provenance.model_sha256.clone(),
        verdicts: run.claims.iter().map(|claim| claim.verdict).collect(),
    };
    Ok(Aggregate { runs: runs.iter().map(info).collect(), claims: claims.collect() })
}

fn claim(of_runs: &[&Claim]) -> ClaimAggregate {
    type Key<'a> = [&'a str; 7];
    fn key(row: &ClaimRow) -> Key<'_> {
        let ClaimRow { recipe, part, measure, against, size, edit, unit, .. } = row;
        [recipe, part, measure, against, size, edit, unit].map(String::as_str)
    }
    let mut order: Vec<Key> = Vec::new();
    let mut rows: BTreeMap<Key, Vec<&ClaimRow>> = BTreeMap::new();
    for row in of_runs.iter().flat_map(|claim| &claim.rows) {
        let same = rows.entry(key(row)).or_default();
        if same.is_empty() {
            order.push(key(row));
        }
        same.push(row);
    }
    let row = |key: &Key| {
        let rows = &rows[key];
        let [recipe, part, measure, against, size, edit, unit] = key.map(str::to_owned);
        let effects: Vec<f64> = rows.iter().map(|row| row.effect).collect();
        let mean = mean(&effects).expect("a key has a row");
        let squares: f64 = effects.iter().map(|x| (x - mean) * (x - mean)).sum();
        RowAggregate {
            recipe,
            part,
            measure,
            against,
            size,
            edit,
            unit,
            decides: rows.iter().any(|row| row.decides),
            runs: rows.len(),
            mean,
            sd: (effects.len() > 1).then(|| (squares / (effects.len() - 1) as f64).sqrt()),
            min: effects.iter().copied().fold(f64::INFINITY, f64::min),
            max: effects.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            verdicts: counted(rows.iter().map(|row| row.verdict)),
        }
    };
    let mut rows: Vec<RowAggregate> = order.iter().map(row).collect();
    rows.sort_by_key(|row| !row.decides);
    let first = of_runs.first().expect("the first run has the claim");
    ClaimAggregate {
        id: first.id.clone(),
        claim: first.claim.clone(),
        verdicts: counted(of_runs.iter().map(|claim| claim.verdict)),
        rows,
    }
}

fn counted(verdicts: impl Iterator<Item = Verdict> + Clone) -> Vec<(Verdict, usize)> {
    let count = |verdict| (verdict, verdicts.clone().filter(|&other| other == verdict).count());
    Verdict::ALL.into_iter().map(count).filter(|&(_, n)| n > 0).collect()
}

impl Aggregate {
    /// The aggregate as Markdown: verdicts by claim and run, then the rows that decide.
    pub fn markdown(&self) -> String {
        let mut text = format!("# {} runs of the study\n\n| claim | verdicts |", self.runs.len());
        let seed = |run: &RunInfo| format!(" {} seed {} |", escape(&run.model), run.seed);
        text.extend(self.runs.iter().map(seed));
        text.push_str("\n| --- | --- |");
        text.extend(self.runs.iter().map(|_| " --- |"));
        text.push('\n');
        for (number, claim) in self.claims.iter().enumerate() {
            let _ = write!(text, "| {} | {} |", claim.id, words(&claim.verdicts));
            let of_run = |run: &RunInfo| run.verdicts.get(number).map_or("", |verdict| verdict.words());
            text.extend(self.runs.iter().map(|run| format!(" {} |", of_run(run))));
            text.push('\n');
        }
        text.push_str(
            "\nEffects of the comparisons that decide, positive where they speak for the claim; mean, standard \
             deviation and range over the runs.\n\n| claim | recipe | part | measure | against | size | edit | unit \
             | runs | mean | sd | min | max | verdicts |\n| --- | --- | --- | --- | --- | --- | --- | --- | ---: \
             | ---: | ---: | ---: | ---: | --- |\n",
        );
        for claim in &self.claims {
            for row in claim.rows.iter().filter(|row| row.decides) {
                let RowAggregate { recipe, part, measure, against, size, edit, unit, .. } = row;
                let labels = [recipe, part, measure, against, size, edit, unit].map(|label| escape(label));
                let sd = row.sd.map_or_else(|| "–".to_owned(), |sd| format!("{sd:.4}"));
                let _ = writeln!(
                    text,
                    "| {} | {} | {} | {:.4} | {sd} | {:.4} | {:.4} | {} |",
                    claim.id,
                    labels.join(" | "),
                    row.runs,
                    row.mean,
                    row.min,
                    row.max,
                    words(&row.verdicts)
                );
            }
        }
        text
    }
}

fn words(verdicts: &[(Verdict, usize)]) -> String {
    let words: Vec<String> = verdicts.iter().map(|(verdict, n)| format!("{n} {}", verdict.words())).collect();
    words.join(", ")
}

fn escape(text: &str) -> String {
    crate::report::escape_markdown(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fabricated;

    /// A run with another seed, in which every effect is shifted.
    fn run(seed: u64, shift: f64) -> (String, Results) {
        let mut results = fabricated::results();
        results.provenance.seed = seed;
        for claim in &mut results.claims {
            for (number, row) in claim.rows.iter_mut().enumerate() {
                // Fabricated rows may have equal labels.
                row.part = format!("{} {number}", row.part);
                row.effect += shift;
            }
        }
        (format!("run{seed}/results.json"), results)
    }

    #[test]
    fn effects_and_verdicts_by_hand() {
        let mut runs = [run(1, 0.0), run(2, 1.0), run(3, 5.0)];
        runs[2].1.claims[0].verdict = Verdict::NotTestable;
        let all = aggregate(&runs).unwrap();
        let alone = aggregate(&runs[..1]).unwrap();
        assert_eq!(all.runs.iter().map(|run| run.seed).collect::<Vec<_>>(), [1, 2, 3]);
        let first = runs[0].1.claims[0].verdict;
        assert!(all.claims[0].verdicts.contains(&(Verdict::NotTestable, 1)));
        assert!(all.claims[0].verdicts.contains(&(first, 2)));
        let mut rows = 0;
        for (claim, alone) in all.claims.iter().zip(&alone.claims) {
            for (row, alone) in claim.rows.iter().zip(&alone.rows) {
                rows += 1;
                assert_eq!((row.runs, alone.runs, alone.sd), (3, 1, None));
                // Shifts of 0, 1 and 5: mean 2, squares 4 + 1 + 9.
                assert!((row.mean - alone.mean - 2.0).abs() < 1e-12);
                assert!((row.sd.unwrap() - 7f64.sqrt()).abs() < 1e-12);
                assert!((row.max - row.min - 5.0).abs() < 1e-12);
            }
        }
        assert!(rows > 0);
        let page = all.markdown();
        assert!(page.contains("1 not testable here") && page.contains("# 3 runs of the study"), "{page}");
    }

    #[test]
    fn runs_that_cannot_be_compared_are_refused() {
        assert!(aggregate(&[]).unwrap_err().contains("no run"));
        let twice = aggregate(&[run(1, 0.0), run(1, 0.0)]).unwrap_err();
        assert!(twice.contains("same run as run1/results.json"), "{twice}");
        let mut other = run(2, 0.0);
        other.1.provenance.profile = "full".into();
        let why = aggregate(&[run(1, 0.0), other]).unwrap_err();
        assert!(why.contains("run2/results.json: profile is full"), "{why}");
    }
}
