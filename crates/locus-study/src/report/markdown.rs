//! `report.md` and `tables/*.md`.

use super::cell;
use super::frame::{TITLE, home, provenance_rows, subtitle};
use super::table::{self, escape};
use crate::results::{Claim, Figure, Provenance, Results, Table};

/// One table as a file of its own, in the folder of its CSV.
pub fn table_file(table: &Table) -> String {
    let head = format!("# {}. {}\n\n", table.id, escape(&table.title));
    let foot = format!("\nRaw values: [{0}.csv]({0}.csv)\n", table.id);
    [head, notes(&table.notes), table::markdown(table), foot].concat()
}

/// The whole report.
pub fn report(results: &Results) -> String {
    let Results { provenance, records: _, tables, figures, claims } = results;
    let mut text = format!("# {}\n\n", TITLE);
    text += &format!("{}\n\n", escape(&subtitle(provenance)));
    text += "## Claims\n\n";
    text += &claims_table(claims);
    text += &claims.iter().map(claim).collect::<String>();
    for table in tables {
        text += &format!("\n## {}. {}\n\n", table.id, escape(&table.title));
        text += &notes(&table.notes);
        text += &table::markdown(table);
        text += &format!("\nRaw values: [tables/{0}.csv](tables/{0}.csv)\n", table.id);
        text += &figures
            .iter()
            .filter(|one| home(one, tables) == Some(&table.id))
            .map(figure)
            .collect::<String>();
    }
    let others: String = figures.iter().filter(|one| home(one, tables).is_none()).map(figure).collect();
    if !others.is_empty() {
        text += &format!("\n## Figures\n{others}");
    }
    text + &provenance_section(provenance)
}

fn claims_table(claims: &[Claim]) -> String {
    let mut text =
        "| | claim | verdict | effect [95 % interval] | p | n |\n| --- | --- | --- | --- | ---: | ---: |\n"
            .to_owned();
    for claim in claims {
        text += &format!(
            "| {} | {} | **{}** | {} | {} | {} |\n",
            claim.id,
            escape(&claim.claim),
            claim.verdict.words(),
            escape(&cell::effect(claim)),
            cell::p_value(claim),
            cell::grouped(claim.n as u64),
        );
    }
    text
}

fn claim(claim: &Claim) -> String {
    let because = if claim.because.is_empty() { String::new() } else { format!(": {}", claim.because) };
    format!(
        "\n**{}.** {}{} Recipe {}. {} Published: {} Decided by: {}\n",
        claim.id,
        claim.verdict.words(),
        escape(&format!("{because}.")),
        escape(&claim.recipe),
        escape(&claim.reading),
        escape(&claim.source),
        escape(&claim.statistic)
    )
}

fn notes(notes: &[String]) -> String {
    if notes.is_empty() {
        return String::new();
    }
    notes.iter().map(|note| format!("- {}\n", escape(note))).chain(["\n".to_owned()]).collect()
}

fn figure(figure: &Figure) -> String {
    let title = escape(&figure.title);
    format!("\n![{title}](figures/{}.svg)\n\n*{title}.* {}\n", figure.id, escape(&figure.caption))
}

fn provenance_section(provenance: &Provenance) -> String {
    let mut text = "\n## Provenance\n\n| | |\n| --- | --- |\n".to_owned();
    for (name, value) in provenance_rows(provenance) {
        text += &format!("| {name} | {} |\n", escape(&value));
    }
    text += "\n### Conventions\n\n";
    text += &notes(&provenance.conventions);
    text += "### Data files\n\n| file | SHA-256 |\n| --- | --- |\n";
    for (name, digest) in &provenance.data_sha256 {
        text += &format!("| {} | `{digest}` |\n", escape(name));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fabricated;

    #[test]
    fn the_report_holds_every_claim_table_and_figure_once() {
        let results = fabricated::results();
        let text = report(&results);
        for claim in &results.claims {
            assert_eq!(text.matches(&format!("\n**{}.** ", claim.id)).count(), 1, "{}", claim.id);
        }
        for table in &results.tables {
            assert_eq!(text.matches(&table::markdown(table)).count(), 1, "{}", table.id);
            assert!(table_file(table).contains(&table::markdown(table)));
        }
        for figure in &results.figures {
            assert_eq!(text.matches(&format!("(figures/{}.svg)", figure.id)).count(), 1, "{}", figure.id);
        }
    }
}
