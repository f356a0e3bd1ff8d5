//! Tests of the figures: what is drawn is what the records hold.

use super::*;
use crate::results::Plot;
use crate::tables::fabricated::{TASKS, options, records};

#[test]
fn every_figure_is_there_and_survives_json() {
    let figures = all(&records(1.0, 0.2), &options());
    let ids: Vec<&str> = figures.iter().map(|f| f.id.as_str()).collect();
    assert_eq!(
        ids,
        ["T2-nll", "T3-nll", "T4-accuracy", "T4-editing", "T5-overlap-5", "T5-overlap-50", "T6-composition",]
    );
    let json = serde_json::to_string(&figures).unwrap();
    serde_json::from_str::<Vec<Figure>>(&json).expect("every number is finite");
}

#[test]
fn nothing_is_drawn_of_nothing() {
    assert!(all(&Records::default(), &options()).is_empty());
}

#[test]
fn heat_maps_are_symmetric_with_an_empty_diagonal() {
    let figures = all(&records(1.0, 0.2), &options());
    let Plot::HeatMap { rows, values, max, .. } = &figures[4].plot else { panic!("a heat map") };
    assert_eq!((rows.len(), rows[0].as_str()), (TASKS.len(), "hierarchy"));
    for i in 0..rows.len() {
        for j in 0..rows.len() {
            assert_eq!(values[i][j], values[j][i]);
            assert_eq!(values[i][j].is_none(), i == j);
            assert!(values[i][j].unwrap_or(0.0) <= *max);
        }
    }
}

#[test]
fn lines_ascend_and_bars_fit_their_groups() {
    let figures = all(&records(1.0, 0.2), &options());
    for figure in &figures {
        match &figure.plot {
            Plot::Lines { series, .. } => {
                assert!(
                    series.iter().all(|line| line.points.is_sorted_by(|a, b| a.0 < b.0)),
                    "{}",
                    figure.id
                );
            }
            Plot::Bars { groups, series, .. } => {
                assert_eq!(series.len(), 3);
                assert!(
                    series
                        .iter()
                        .all(|s| s.values.len() == groups.len() && s.intervals.len() == groups.len())
                );
            }
            Plot::HeatMap { .. } | Plot::BeforeAfter { .. } => {}
        }
    }
    let Plot::BeforeAfter { entries, .. } = &figures[0].plot else { panic!("before and after") };
    assert_eq!(entries.len(), 2 * (2 + 2 * TASKS.len()));
}

#[test]
fn other_presets_get_files_of_their_own() {
    let mut records = records(1.0, 0.2);
    records.overlaps.iter_mut().for_each(|o| o.preset = "scheduled-top-k".into());
    let ids: Vec<String> = all(&records, &options()).into_iter().map(|f| f.id).collect();
    assert!(ids.contains(&"T5-overlap-50-scheduled-top-k".into()), "{ids:?}");
}
