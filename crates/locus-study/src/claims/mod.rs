//! The published claims C1-C7, decided from the records.
//!
//! Every claim lists the comparisons that bear on it as rows: one per size, control, measure and kind of edit. Some rows
//! decide, by rules that are the same for all claims (`rule`); the others show what the verdict would be elsewhere
//! (table X4). A claim is decided for each recipe separately, and not at all where the model is not competent (`gate`).
//!
//! One file per subject, as in `tables`: `editing` (C1, C2, C6), `sizes` (C3), `overlap` (C4), `composition` (C5) and
//! `levels` (C7).

mod claim;
mod composition;
mod editing;
mod gate;
mod levels;
#[cfg(test)]
mod null_worlds;
mod overlap;
mod rule;
mod sizes;
#[cfg(test)]
mod tests;

use self::claim::{PublishedClaim, Question, signed};
use self::gate::Gate;
use crate::{
    records::Records,
    results::{Claim, ClaimRow, RecipeVerdict, Verdict},
    tables::{TableOptions, select::presets},
};

const CLAIMS: [PublishedClaim; 7] =
    [editing::C1, editing::C2, sizes::C3, overlap::C4, composition::C5, editing::C6, levels::C7];

/// Ids of the tables that show what a claim is decided by; none for an unknown claim.
pub(crate) fn tables_of(claim: &str) -> Vec<&'static str> {
    let mut claims = CLAIMS.iter().filter(|published| published.id == claim);
    claims.next().map_or_else(Vec::new, |published| published.needs.split(" and ").collect())
}

/// A claim decided for one recipe.
struct Decided {
    verdict: Verdict,
    because: String,
    /// Largest p-value of the rows that decide, adjusted for the number of claims.
    p_value: Option<f64>,
    rows: Vec<ClaimRow>,
}

/// Every claim with its verdict on each recipe. The recipe with most edits comes first, or with most
/// circuits where nothing was edited.
pub fn decide(records: &Records, options: &TableOptions) -> Vec<Claim> {
    let gate = Gate::new(records);
    let mut recipes = presets(records);
    recipes.sort_by_key(|preset| {
        let edits = records.edits.iter().filter(|edit| edit.preset == *preset).count();
        let circuits = records.extractions.iter().filter(|circuit| circuit.preset == *preset).count();
        std::cmp::Reverse((edits, circuits))
    });
    let mut by_recipe: Vec<(&str, Vec<Decided>)> =
        recipes.iter().map(|recipe| (*recipe, decide_recipe(records, recipe, &gate))).collect();
    if by_recipe.is_empty() {
        by_recipe.push(("", decide_recipe(records, "", &gate)));
    }
    let claims = CLAIMS.iter().enumerate();
    claims.map(|(i, published)| assemble(published, i, &mut by_recipe, options)).collect()
}

fn decide_recipe(records: &Records, recipe: &str, gate: &Gate) -> Vec<Decided> {
    let question = Question::new(records, recipe, gate);
    let open = Gate::open(records);
    let ungated = Question::new(records, recipe, &open);
    let mut decided: Vec<(Verdict, String, Option<f64>)> = Vec::new();
    let mut rows_of = Vec::new();
    for published in &CLAIMS {
        let mut rows = (published.rows)(&question);
        rows.retain(|row| [row.effect, row.low, row.high, row.p_value].iter().all(|x| x.is_finite()));
        rows.sort_by_key(|row| !row.decides);
        let (verdict, because) = rule::combine(&rows, published.about_facts);
        decided.push(match gate.closed(published.about_facts) {
            Some(why) => (Verdict::NotTestable, why, None),
            // Records that would bear on the claim, but for what the model cannot do.
            None if verdict == Verdict::NotMeasured
                && !gate.at_chance.is_empty()
                && !(published.rows)(&ungated).is_empty() =>
            {
                (Verdict::NotTestable, gate.fails_tasks(), None)
            }
            None if verdict == Verdict::NotMeasured => {
                // Circuits that do not work are the reason only where they would have been compared.
                let compared = !(published.rows)(&ungated).is_empty();
                let broken = gate.broken.get(recipe).filter(|_| compared).map_or(0, Vec::len);
                let why = match broken {
                    0 => format!("needs {}", published.needs),
                    1 => format!("a circuit fails at its task or its size; needs {}", published.needs),
                    n => format!("{n} circuits fail at their task or their size; needs {}", published.needs),
                };
                (verdict, why, None)
            }
            None => (verdict, because, rule::largest_p(&rows)),
        });
        rows_of.push(rows);
    }
    rule::correct(&mut decided);
    decided
        .into_iter()
        .zip(rows_of)
        .map(|((verdict, because, p_value), rows)| Decided { verdict, because, p_value, rows })
        .collect()
}

fn assemble(
    published: &PublishedClaim,
    i: usize,
    by_recipe: &mut [(&str, Vec<Decided>)],
    options: &TableOptions,
) -> Claim {
    let others: Vec<RecipeVerdict> = by_recipe[1..]
        .iter()
        .map(|(recipe, decided)| RecipeVerdict {
            recipe: (*recipe).into(),
            verdict: decided[i].verdict,
            because: decided[i].because.clone(),
        })
        .collect();
    let rows: Vec<ClaimRow> =
        by_recipe.iter_mut().flat_map(|(_, decided)| std::mem::take(&mut decided[i].rows)).collect();
    let (recipe, decided) = &by_recipe[0];
    let main = &decided[i];
    let deciding: Vec<&ClaimRow> = rows.iter().filter(|row| row.decides && row.recipe == *recipe).collect();
    // The row that is farthest from supporting the claim, in units of what could be seen.
    let scaled = |row: &ClaimRow| row.effect / row.smallest_visible.max(f64::MIN_POSITIVE);
    let weakest = deciding.iter().min_by(|a, b| scaled(a).total_cmp(&scaled(b)));
    let measured: Vec<String> =
        deciding.iter().map(|row| format!("{}: {}", rule::place(row), signed(row))).collect();
    let mut reading = match measured.is_empty() {
        true => format!("Not measured in this run (needs {}).", published.needs),
        false => format!("{}.", measured.join("; ")),
    };
    if !recipe.is_empty() {
        reading.push_str(&format!(" Recipe {recipe}, {} with {}.", options.model, options.data));
    }
    for other in &others {
        let because = if other.because.is_empty() { String::new() } else { format!(" ({})", other.because) };
        reading.push_str(&format!(" Recipe {}: {}{because}.", other.recipe, other.verdict.words()));
    }
    Claim {
        id: published.id.into(),
        claim: published.claim.into(),
        source: published.source.into(),
        statistic: published.statistic.into(),
        recipe: (*recipe).into(),
        verdict: main.verdict,
        because: main.because.clone(),
        effect: weakest.map_or(0.0, |row| row.effect),
        low: weakest.map_or(0.0, |row| row.low),
        high: weakest.map_or(0.0, |row| row.high),
        unit: weakest.map_or_else(String::new, |row| row.unit.clone()),
        p_value: main.p_value.unwrap_or(1.0),
        n: weakest.map_or(0, |row| if row.items > 1 { row.items } else { row.families }),
        others,
        rows,
        reading,
    }
}
