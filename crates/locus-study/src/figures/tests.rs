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
        [
            "T2-nll",
            "T3-nll",
            "T4-accuracy",
            "T4-editing",
            "T5-overlap-5",
            "T5-families-5",
            "T5-overlap-50",
            "T5-families-50",
            "T6-controls-5",
            "T6-controls-50",
            "T6-composition",
            "T6b-layers-5",
            "T6b-layers-50",
        ]
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
                assert_eq!(series.len(), if figure.id == "T6-composition" { 3 } else { 5 }, "{}", figure.id);
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

#[test]
fn a_layer_map_shows_the_planted_shares_and_nothing_else() {
    let figures = all(&records(1.0, 0.0), &options());
    let map = figures.iter().find(|figure| figure.id == "T6b-layers-50").unwrap();
    let Plot::HeatMap { rows, columns, values, .. } = &map.plot else { panic!("a heat map") };
    assert_eq!(rows, &["layer 0"]);
    let planted = [("ln_1", 0.75), ("attn.c_attn", 0.5), ("mlp.c_fc", 0.5)];
    for (column, value) in columns.iter().zip(&values[0]) {
        let expected = planted.iter().find(|(name, _)| name == column).map(|(_, share)| *share);
        assert_eq!(value.is_some(), expected.is_some(), "{column}");
        assert!(value.zip(expected).is_none_or(|(a, b)| (a - b).abs() < 0.01), "{column}: {value:?}");
    }
}

#[test]
fn controls_stand_beside_the_circuit_they_belong_to() {
    let figures = all(&records(1.0, 0.0), &options());
    let beside = figures.iter().find(|figure| figure.id == "T6-controls-50").unwrap();
    let Plot::Bars { groups, series, .. } = &beside.plot else { panic!("bars") };
    assert_eq!((series[0].name.as_str(), groups[0].as_str()), ("circuit", "LayerNorm"));
    assert!(series.len() > 2 && series[1..].iter().all(|one| one.values[0] < series[0].values[0] - 0.1));
}

#[test]
fn families_average_the_overlap_of_their_pairs() {
    let records = records(1.0, 0.0);
    let figures = all(&records, &options());
    let map = figures.iter().find(|figure| figure.id == "T5-families-5").unwrap();
    let Plot::HeatMap { rows, values, .. } = &map.plot else { panic!("a heat map") };
    assert_eq!(rows, &["blimp", "hierarchy", "persona"]);
    // Every pair shares 1200 of 5000 parameters where 250 are chance; the hierarchy is alone in its family.
    let jaccard = |shared: f64| shared / (10_000.0 - shared);
    let planted = (jaccard(1200.0) - jaccard(250.0)) / (1.0 - jaccard(250.0));
    for (i, row) in values.iter().enumerate() {
        for (j, value) in row.iter().enumerate() {
            assert_eq!(value.is_none(), (i, j) == (1, 1));
            assert!(value.is_none_or(|value| (value - planted).abs() < 1e-3), "{i} {j}: {value:?}");
        }
    }
}
