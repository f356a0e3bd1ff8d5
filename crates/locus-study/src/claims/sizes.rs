//! The claim about sizes, C3: an ideal circuit lies between 5 % and 50 % of the parameters.
//!
//! The claim needs a criterion of "ideal". A size counts as ideal when
//! 1. the circuit does what the model does: agreement with the full model is at least [`AGREEMENT`];
//! 2. nothing of the task is left outside: accuracy of the complement is at most [`LEFT_OVER`], which is chance and a
//!    margin;
//! 3. the knowledge is inside: more than half of the edits lower NLL(new) by less in the circuit than in the complement
//!    (where the size was edited).
//!
//! The margin of a size is how far the worst of the three is from failing, as a share. The claim holds when some size
//! strictly between 5 % and 50 % passes, so that half of the parameters are more than needed, while 5 % fails, so that
//! these are not enough: the effect is the smaller of the best margin in between and the negative of the margin at 5 %.

use locus_metrics::{Interval, bootstrap};

use super::claim::{Evidence, PublishedClaim, p, percent, signed};
use crate::{
    records::{EditOutcome, Extraction, HIERARCHY, Records, Scope},
    tables::{
        TableOptions,
        editing::{change_new, sweep},
        select::{Density, mean},
    },
};

/// Smallest agreement of an ideal circuit with the full model.
const AGREEMENT: f64 = 0.9;
/// Largest accuracy of an ideal circuit's complement: chance for two balanced classes, and a margin of 0.1.
const LEFT_OVER: f64 = 0.6;
/// Smallest share of requests that an ideal circuit resists more than its complement does.
const RESISTED: f64 = 0.5;

pub(super) const C3: PublishedClaim = PublishedClaim {
    id: "C3",
    claim: "An ideal circuit lies between 5 % and 50 % of the parameters.",
    statistic: "Hierarchy task, sizes whose target was reached. The margin of a size is the smallest of: \
                agreement of the circuit minus 0.9; 0.6 minus accuracy of the complement; and, where edited, \
                the share of requests whose NLL(new) falls less in the circuit than in the complement, minus \
                0.5. Effect: the smaller of the best margin strictly between 5 % and 50 % and the negative of \
                the margin at 5 %; interval and p by bootstrap over held-out rows and requests. The claim \
                holds above zero.",
    unit: "share",
    claimed: (0.0, f64::INFINITY),
    needs: "T4",
    evidence: between_5_and_50_percent,
};

/// One size and how far it is from failing.
struct SizeMargin {
    density: Density,
    held_out_rows: usize,
    agreement: f64,
    complement: f64,
    /// Share of requests that the circuit resists more than its complement; `None` where the size was not edited.
    resisted: Option<f64>,
    margin: f64,
    /// The margin on each bootstrap resample.
    resamples: Vec<f64>,
}

fn between_5_and_50_percent(records: &Records, preset: &str, options: &TableOptions) -> Option<Evidence> {
    let measurable =
        |e: &&Extraction| e.preset == preset && e.task == HIERARCHY && e.reached && e.held_out_rows > 0;
    let mut sizes: Vec<SizeMargin> = records
        .extractions
        .iter()
        .filter(measurable)
        .map(|e| SizeMargin::new(e, &resistance(records, preset, Density::of(e.target_density)), options))
        .collect();
    sizes.sort_by_key(|size| size.density);
    let smallest = sizes.iter().find(|size| size.density == Density::SMALL)?;
    let between: Vec<&SizeMargin> =
        sizes.iter().filter(|size| Density::SMALL < size.density && size.density < Density::LARGE).collect();
    let best = *between.iter().max_by(|a, b| a.margin.total_cmp(&b.margin))?;

    let effect = |margin: &dyn Fn(&SizeMargin) -> f64| {
        between.iter().map(|size| margin(size)).fold(f64::NEG_INFINITY, f64::max).min(-margin(smallest))
    };
    let resamples: Vec<f64> = (0..options.resamples).map(|i| effect(&|size| size.resamples[i])).collect();
    let p_value = bootstrap::two_sided_p(&resamples);
    let effect = Interval::of_resamples(effect(&|size| size.margin), resamples);
    let reading = format!(
        "Best size in between: {}. {}. Effect {} (p {}).",
        best.density.label(),
        sizes.iter().map(SizeMargin::describe).collect::<Vec<_>>().join("; "),
        signed(&effect),
        p(p_value),
    );
    Some(Evidence { effect, p_value, n: smallest.held_out_rows, reading })
}

impl SizeMargin {
    fn new(e: &Extraction, resisted: &[f64], options: &TableOptions) -> Self {
        let density = Density::of(e.target_density);
        let rows = e.held_out_rows;
        let purpose = |what: &str| format!("C3/{}/{}/{what}", e.preset, density.label());
        // A share of rows is a mean of zeros and ones, and resampling needs only how many there are of each.
        let zeros_and_ones = |share: f64| -> Vec<f64> {
            (0..rows).map(|row| f64::from(u8::from((row as f64) < (share * rows as f64).round()))).collect()
        };
        let draws = |values: &[f64], what: &str| {
            let share = |rows: &[usize]| rows.iter().map(|&row| values[row]).sum::<f64>() / rows.len() as f64;
            bootstrap::draws(values.len(), options.resamples, options.stream(&purpose(what)), share)
        };
        let agreement = draws(&zeros_and_ones(e.agreement), "agreement");
        let complement = draws(&zeros_and_ones(e.accuracy_complement), "complement");
        let resisted_share = mean(resisted.iter().copied());
        let resisted = resisted_share.map(|_| draws(resisted, "resisted"));
        let resamples = (0..options.resamples)
            .map(|i| margin(agreement[i], complement[i], resisted.as_ref().map(|shares| shares[i])))
            .collect();
        Self {
            density,
            held_out_rows: rows,
            agreement: e.agreement,
            complement: e.accuracy_complement,
            resisted: resisted_share,
            margin: margin(e.agreement, e.accuracy_complement, resisted_share),
            resamples,
        }
    }

    fn describe(&self) -> String {
        let resisted = self
            .resisted
            .map_or("not edited".into(), |share| format!("{} of edits resisted", percent(share)));
        format!(
            "{}: agreement {}, complement accuracy {}, {resisted}",
            self.density.label(),
            percent(self.agreement),
            percent(self.complement)
        )
    }
}

fn margin(agreement: f64, complement: f64, resisted: Option<f64>) -> f64 {
    let extraction = (agreement - AGREEMENT).min(LEFT_OVER - complement);
    resisted.map_or(extraction, |share| extraction.min(share - RESISTED))
}

/// For each request 1 if NLL(new) falls less in the hierarchy circuit than in its complement, otherwise 0.
fn resistance(records: &Records, preset: &str, density: Density) -> Vec<f64> {
    let groups = sweep(records, preset);
    let edits_in = |scope| {
        groups.iter().find(|(d, s, _)| *d == density && *s == scope).map(|(_, _, edits)| edits.as_slice())
    };
    let (Some(circuit), Some(complement)) = (edits_in(Scope::Circuit), edits_in(Scope::Complement)) else {
        return Vec::new();
    };
    let falls_less = |inside: &EditOutcome| {
        let outside = complement.iter().find(|e| e.case_id == inside.case_id)?;
        Some((inside.case_id, f64::from(u8::from(change_new(inside) > change_new(outside)))))
    };
    let mut requests: Vec<(u64, f64)> = circuit.iter().filter_map(|e| falls_less(e)).collect();
    requests.sort_by_key(|(case_id, _)| *case_id);
    requests.into_iter().map(|(_, resisted)| resisted).collect()
}
