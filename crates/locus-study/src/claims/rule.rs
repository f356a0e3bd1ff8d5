//! The rules that turn estimates into verdicts.
//!
//! A row is supported when its whole 95 % interval lies within the claimed range, and not supported when the whole
//! interval lies below the smallest effect that would matter, or above the range: the effect is reversed, absent or too
//! small. Otherwise it is undecided, and so is every row of fewer than six independent requests. A part of a claim is
//! supported when all of its rows are, and not supported when one is not; a claim is supported when all of its parts
//! are, mixed when parts differ, and not supported when no part is supported and one is not.

use locus_metrics::two_way::{Estimate, holm};

use crate::results::{ClaimRow, Verdict};

/// Level of every test.
pub(super) const ALPHA: f64 = 0.05;

/// Fewest independent requests that decide: the signs of five could agree by chance in 2 of 32 cases, more than
/// [`ALPHA`], and the spread of fewer is not known.
pub(super) const FEWEST_REQUESTS: usize = 6;

/// The range in which an effect lies when a claim holds, above 0, and the smallest effect that matters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimed {
    /// Effects from here on are too large for the claim.
    pub(super) below: f64,
    /// Effects smaller than this do not matter, whatever their sign.
    pub(super) smallest: f64,
}

impl Claimed {
    /// Any effect above 0.
    pub(super) fn positive(smallest: f64) -> Self {
        Claimed { below: f64::INFINITY, smallest }
    }

    pub(super) fn verdict(self, estimate: &Estimate) -> Verdict {
        if estimate.high < self.smallest || estimate.low > self.below {
            Verdict::NotSupported
        } else if estimate.low > 0.0 && estimate.high < self.below && estimate.p_value < ALPHA {
            Verdict::Supported
        } else {
            Verdict::Undecided
        }
    }
}

/// The parts of a claim in order, each with its verdict.
fn parts(rows: &[ClaimRow]) -> Vec<(&str, Verdict)> {
    let mut parts: Vec<(&str, Verdict)> = Vec::new();
    for row in rows.iter().filter(|row| row.decides) {
        match parts.iter_mut().find(|(part, _)| *part == row.part) {
            None => parts.push((&row.part, row.verdict)),
            Some((_, verdict)) => {
                *verdict = match (*verdict, row.verdict) {
                    (Verdict::NotSupported, _) | (_, Verdict::NotSupported) => Verdict::NotSupported,
                    (Verdict::Supported, Verdict::Supported) => Verdict::Supported,
                    _ => Verdict::Undecided,
                }
            }
        }
    }
    parts
}

/// The verdict of the rows that decide, with its reason.
///
/// `about_facts` says whether items are independent requests.
pub(super) fn combine(rows: &[ClaimRow], about_facts: bool) -> (Verdict, String) {
    let parts = parts(rows);
    let named = |wanted: Verdict| {
        let names: Vec<&str> =
            parts.iter().filter(|(_, verdict)| *verdict == wanted).map(|(part, _)| *part).collect();
        names.join(", ")
    };
    let has = |wanted: Verdict| parts.iter().any(|(_, verdict)| *verdict == wanted);
    // The row that is farthest from supporting what is not supported.
    let against = || {
        let failing = rows.iter().filter(|row| row.decides && row.verdict == Verdict::NotSupported);
        failing.min_by(|a, b| a.effect.total_cmp(&b.effect)).map(why).unwrap_or_default()
    };
    if parts.is_empty() {
        return (Verdict::NotMeasured, String::new());
    }
    match (has(Verdict::Supported), has(Verdict::NotSupported), has(Verdict::Undecided)) {
        (true, false, false) => (Verdict::Supported, "every comparison that decides agrees".into()),
        (true, true, _) => {
            let (holds, fails) = (named(Verdict::Supported), named(Verdict::NotSupported));
            (Verdict::Mixed, format!("holds for {holds}; fails for {fails}: {}", against()))
        }
        (false, true, _) => (Verdict::NotSupported, against()),
        (supported, false, _) => {
            let open: Vec<&ClaimRow> =
                rows.iter().filter(|row| row.decides && row.verdict == Verdict::Undecided).collect();
            let widest = open.iter().max_by(|a, b| {
                let scaled = |row: &ClaimRow| row.smallest_visible;
                scaled(a).total_cmp(&scaled(b))
            });
            let visible = |row: &ClaimRow| {
                let (visible, unit) = (row.smallest_visible, &row.unit);
                format!("; in {} an effect below {visible:.3} {unit} could not be seen", place(row))
            };
            let few = open.iter().find(|row| about_facts && row.items < FEWEST_REQUESTS);
            let visible = match few.map(|row| row.items) {
                Some(1) => "; one independent request decides nothing".into(),
                Some(n) => format!("; {n} independent requests decide nothing"),
                None => widest.map_or_else(String::new, |row| visible(row)),
            };
            let start = if supported {
                format!("holds for {}, open for ", named(Verdict::Supported))
            } else {
                "open for ".into()
            };
            (Verdict::Undecided, format!("{start}{}{visible}", named(Verdict::Undecided)))
        }
    }
}

/// Where a row was measured: `margin against matched at 50 %`.
pub(super) fn place(row: &ClaimRow) -> String {
    let size = if row.size.is_empty() { String::new() } else { format!(" at {}", row.size) };
    let against = if row.against.is_empty() { String::new() } else { format!(" {}", row.against) };
    format!("{}{against}{size}", row.measure)
}

/// Why a row is not supported.
fn why(row: &ClaimRow) -> String {
    let kind = if row.high < 0.0 {
        "reversed"
    } else if row.low > 0.0 {
        "outside the claimed range"
    } else {
        "no effect that matters"
    };
    format!("{}: {kind}, {:+.3} [{:+.3}, {:+.3}] {}", place(row), row.effect, row.low, row.high, row.unit)
}

/// The largest p-value of the rows that decide: all of them have to be right.
pub(super) fn largest_p(rows: &[ClaimRow]) -> Option<f64> {
    rows.iter().filter(|row| row.decides).map(|row| row.p_value).reduce(f64::max)
}

/// Corrects the verdicts on the claims of one recipe for their number: a claim whose adjusted p-value is not below
/// [`ALPHA`] is not supported yet. Returns the adjusted p-values.
pub(super) fn correct(claims: &mut [(Verdict, String, Option<f64>)]) {
    let tested: Vec<usize> = (0..claims.len()).filter(|&i| claims[i].2.is_some()).collect();
    let p_values: Vec<f64> = tested.iter().filter_map(|&i| claims[i].2).collect();
    for (&i, adjusted) in tested.iter().zip(holm(&p_values)) {
        let (verdict, because, p) = &mut claims[i];
        *p = Some(adjusted);
        if *verdict == Verdict::Supported && adjusted >= ALPHA {
            *verdict = Verdict::Undecided;
            *because = format!(
                "every comparison agrees, but not after correction for the number of claims (p {adjusted:.3})"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(part: &str, effect: f64, half: f64, claimed: Claimed) -> ClaimRow {
        let estimate = Estimate::new(effect, half / 1.984, 100.0).unwrap();
        ClaimRow {
            recipe: String::new(),
            part: part.into(),
            measure: "margin".into(),
            against: "against matched".into(),
            size: part.into(),
            edit: String::new(),
            unit: "nats".into(),
            effect,
            low: estimate.low,
            high: estimate.high,
            p_value: estimate.p_value,
            smallest_visible: estimate.smallest_visible,
            items: 100,
            families: 1,
            decides: true,
            verdict: claimed.verdict(&estimate),
        }
    }

    #[test]
    fn rows_are_decided_by_their_interval() {
        let positive = Claimed::positive(0.1);
        let moderate = Claimed { below: 0.5, smallest: 0.1 };
        for (effect, half, claimed, expected) in [
            (0.3, 0.1, positive, Verdict::Supported),
            (-0.3, 0.1, positive, Verdict::NotSupported),
            // Positive beyond doubt, but too small to matter.
            (0.03, 0.02, positive, Verdict::NotSupported),
            // A control that does the same.
            (0.0, 0.05, positive, Verdict::NotSupported),
            (0.0, 0.3, positive, Verdict::Undecided),
            (0.3, 0.1, moderate, Verdict::Supported),
            (0.7, 0.1, moderate, Verdict::NotSupported),
            (0.5, 0.1, moderate, Verdict::Undecided),
        ] {
            assert_eq!(row("", effect, half, claimed).verdict, expected, "{effect} +- {half}");
        }
    }

    #[test]
    fn parts_decide_together() {
        let claimed = Claimed::positive(0.1);
        let rows = |effects: &[(&str, f64, f64)]| -> Vec<ClaimRow> {
            effects.iter().map(|&(part, effect, half)| row(part, effect, half, claimed)).collect()
        };
        let (yes, no, open) = ((1.0, 0.1), (-1.0, 0.1), (0.0, 1.0));
        for (cases, expected) in [
            (vec![("5 %", yes), ("50 %", yes)], Verdict::Supported),
            (vec![("5 %", yes), ("50 %", no)], Verdict::Mixed),
            (vec![("5 %", yes), ("5 %", no)], Verdict::NotSupported),
            (vec![("5 %", open), ("50 %", no)], Verdict::NotSupported),
            (vec![("5 %", yes), ("50 %", open)], Verdict::Undecided),
            (vec![("5 %", open)], Verdict::Undecided),
            (vec![], Verdict::NotMeasured),
        ] {
            let cases: Vec<(&str, f64, f64)> = cases.into_iter().map(|(part, (e, h))| (part, e, h)).collect();
            assert_eq!(combine(&rows(&cases), false).0, expected, "{cases:?}");
        }
        let (_, because) = combine(&rows(&[("5 %", 1.0, 0.1), ("50 %", -1.0, 0.1)]), false);
        assert!(
            because.starts_with("holds for 5 %; fails for 50 %: margin against matched at 50 %: reversed"),
            "{because}"
        );
        // Positive beyond doubt, and too small to matter.
        let (_, because) = combine(&rows(&[("5 %", 0.03, 0.02)]), false);
        assert!(because.contains("outside the claimed range, +0.030"), "{because}");
        let (_, because) = combine(&rows(&[("5 %", 0.0, 1.0)]), false);
        assert!(because.contains("an effect below 1.4"), "{because}");
        // Three items are few where they are requests, and enough where they are families.
        let few = [ClaimRow { items: 3, ..row("5 %", 0.0, 1.0, claimed) }];
        assert!(combine(&few, true).1.contains("3 independent requests decide nothing"));
        assert!(combine(&few, false).1.contains("an effect below 1.4"));
    }

    #[test]
    fn correction_takes_weak_support_back() {
        let mut claims = vec![
            (Verdict::Supported, String::new(), Some(0.02)),
            (Verdict::Supported, String::new(), Some(0.0001)),
            (Verdict::NotMeasured, String::new(), None),
            (Verdict::Undecided, String::new(), Some(0.4)),
        ];
        correct(&mut claims);
        let verdicts: Vec<Verdict> = claims.iter().map(|claim| claim.0).collect();
        use Verdict::{NotMeasured, Supported, Undecided};
        assert_eq!(verdicts, [Supported, Supported, NotMeasured, Undecided]);
        assert_eq!(claims[0].2, Some(0.04));
        claims.push((Supported, String::new(), Some(0.03)));
        correct(&mut claims);
        assert_eq!(claims[4].0, Undecided);
    }
}
