//! A number of edges on the command line: a count, or a share of the graph.

use std::str::FromStr;

use super::error::Unusable;

/// `48`, or `10%`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum EdgeCount {
    Edges(usize),
    Percent(f64),
}

impl EdgeCount {
    /// The number, of a graph of `all` edges.
    pub fn of(self, all: usize) -> Result<usize, Unusable> {
        let wanted = match self {
            EdgeCount::Edges(n) => n,
            EdgeCount::Percent(percent) => (percent / 100.0 * all as f64).floor() as usize,
        };
        if wanted == 0 || wanted > all {
            return Err(Unusable(format!(
                "--edges is {wanted}; expected 1 to {all}, the edges of this model"
            )));
        }
        Ok(wanted)
    }
}

impl FromStr for EdgeCount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no number of edges; expected one as 48, or a share as 10%");
        match text.strip_suffix('%') {
            Some(percent) => {
                let percent: f64 = percent.trim().parse().map_err(|_| wrong())?;
                if (0.0..=100.0).contains(&percent) { Ok(EdgeCount::Percent(percent)) } else { Err(wrong()) }
            }
            None => text.parse().map(EdgeCount::Edges).map_err(|_| wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_shares() {
        let of = |text: &str| text.parse::<EdgeCount>().unwrap().of(479).ok();
        assert_eq!(
            [of("48"), of("10%"), of("100 %"), of("0"), of("480"), of("0.1%")],
            [Some(48), Some(47), Some(479), None, None, None]
        );
        for wrong in ["", "x", "-1", "101%", "%", "nan%"] {
            assert!(wrong.parse::<EdgeCount>().is_err(), "{wrong}");
        }
    }
}
