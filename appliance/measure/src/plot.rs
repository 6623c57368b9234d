//! Goodput over time as an SVG picture, with the slice's ceiling as a line to measure it by.

use crate::series::Point;
use plotters::prelude::*;

/// A plot that could not be drawn.
#[derive(Debug, thiserror::Error)]
#[error("drawing the goodput plot: {0}")]
pub struct PlotError(String);

/// One curve.
pub struct Curve<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Goodput over time.
    pub points: &'a [Point],
}

/// Width and height in pixels.
const SIZE: (u32, u32) = (960, 420);

/// The picture as SVG text. `ceiling_bps` is drawn as a dashed line's worth of red.
pub fn goodput_svg(
    title: &str,
    ceiling_bps: u64,
    curves: &[Curve<'_>],
) -> Result<String, PlotError> {
    let mut text = String::new();
    draw(&mut text, title, ceiling_bps, curves).map_err(|e| PlotError(e.to_string()))?;
    Ok(text)
}

fn draw(
    text: &mut String,
    title: &str,
    ceiling_bps: u64,
    curves: &[Curve<'_>],
) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| curve.points);
    let end = points().map(|p| p.at_s).fold(1.0, f64::max);
    let ceiling = ceiling_bps as f64 / 1e6;
    let top = points().map(|p| p.bps / 1e6).fold(ceiling, f64::max) * 1.1;

    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, 0.0..top.max(1.0))?;
    chart
        .configure_mesh()
        .x_desc("seconds")
        .y_desc("goodput, Mb/s")
        .light_line_style(WHITE)
        .draw()?;
    chart
        .draw_series(LineSeries::new(
            [(0.0, ceiling), (end, ceiling)],
            RED.stroke_width(1),
        ))?
        .label(format!("ceiling of the slice, {ceiling:.0} Mb/s"))
        .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], RED));
    for (curve, colour) in curves
        .iter()
        .zip([BLUE, RGBColor(0, 128, 0), MAGENTA, BLACK].iter().cycle())
    {
        let line = curve.points.iter().map(|p| (p.at_s, p.bps / 1e6));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], *colour));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_curve_ceiling_and_units() {
        let points: Vec<_> = (0..20)
            .map(|i| Point {
                at_s: f64::from(i),
                bps: 9e8 + f64::from(i) * 1e6,
            })
            .collect();
        let curve = Curve {
            name: "daejeon → busan",
            points: &points,
        };
        let svg = goodput_svg("goodput <lab>", 943_000_000, &[curve]).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for part in [
            "daejeon → busan",
            "943 Mb/s",
            "goodput, Mb/s",
            "goodput &lt;lab&gt;",
        ] {
            assert!(svg.contains(part), "{part:?} is missing");
        }
        assert!(
            svg.matches("<polyline").count() >= 2,
            "one line for the ceiling, one for the curve"
        );
    }

    #[test]
    fn an_empty_plot_is_a_picture_too() {
        assert!(goodput_svg("empty", 0, &[]).unwrap().contains("</svg>"));
    }
}
