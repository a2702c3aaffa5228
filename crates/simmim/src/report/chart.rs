//! A line chart as HTML and inline SVG. It is drawn here because its colors and width must follow the page: `plotters`
//! fixes both, and its text is too small to read on a phone.
//!
//! The curves are an SVG that is stretched to the available space, with strokes of constant width. Ticks and labels are
//! HTML text positioned in percent of that space.

use super::axis::{Axis, Scale, Tick, plain};
use super::escape;

/// Longer series are thinned to about this number of points, which is more than one per pixel.
const MAX_POINTS: usize = 600;
/// Side of the square in which curves are drawn before it is stretched.
const CANVAS: f64 = 1000.0;
/// Height of the plot on the page, as in `style.css`.
const PLOT_HEIGHT_PX: f64 = 280.0;
/// Smallest distance between two labels at the ends of curves.
const LABEL_HEIGHT_PX: f64 = 17.0;
/// Number of colors in `style.css`.
const COLORS: usize = 8;

/// A line chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// Title above the chart.
    pub title: String,
    /// Label of the x axis, with its unit.
    pub x_label: String,
    /// Label of the y axis, with its unit.
    pub y_label: String,
    /// Scale of the y axis.
    pub y_scale: Scale,
    /// The curves in the order of drawing; the last one is on top.
    pub series: Vec<Series>,
}

/// One curve of a chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Label at the end of the curve.
    pub name: String,
    /// `(x, y)` in the order of drawing. The curve has a gap at points that cannot be shown.
    pub points: Vec<(f64, f64)>,
    /// How it is drawn.
    pub style: Style,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A curve.
    Line,
    /// A faint curve in the color of the next series: raw values behind their mean.
    ThinLine,
    /// A dot at each point, on a faint curve.
    Points,
    /// A dashed curve.
    Dashed,
}

impl Style {
    fn class(self) -> &'static str {
        match self {
            Style::Line => "line",
            Style::ThinLine => "thin",
            Style::Points => "points",
            Style::Dashed => "dashed",
        }
    }
}

impl Chart {
    /// The chart as a `figure` element, styled by `style.css`.
    pub(super) fn render(&self) -> String {
        let xs = self.shown_points().map(|(x, _)| x);
        let ys = self.shown_points().map(|(_, y)| y);
        let axes = Axis::tight(Scale::Linear, xs).zip(Axis::with_margin(self.y_scale, ys));
        let title = escape(&self.title);
        let Some((x_axis, y_axis)) = axes else {
            return format!(
                "<figure class=\"chart\"><figcaption>{title}</figcaption>\
                 <p class=\"empty\">No values to show.</p></figure>\n"
            );
        };
        let colors = self.colors();
        let mut html = format!("<figure class=\"chart\"><figcaption>{title}</figcaption>\n");
        html += &self.legend(&colors);
        html += &format!("<div class=\"y-label\">{}</div>\n<div class=\"plot\">\n", escape(&self.y_label));
        html += &self.drawing(&x_axis, &y_axis, &colors);
        for Tick { position, label } in y_axis.ticks() {
            html += &format!("<span class=\"y\" style=\"top:{:.2}%\">{label}</span>", percent(1.0 - position));
        }
        let x_ticks = x_axis.ticks();
        for (index, Tick { position, label }) in x_ticks.iter().enumerate() {
            // a narrow display hides every other label
            let class = if x_ticks.len() > 5 && index % 2 == 1 { "x odd" } else { "x" };
            html += &format!("<span class=\"{class}\" style=\"left:{:.2}%\">{label}</span>", percent(*position));
        }
        html += &self.end_labels(&y_axis, &colors);
        html += &format!("</div>\n<div class=\"x-label\">{}</div></figure>\n", escape(&self.x_label));
        html
    }

    fn shows(&self, (x, y): (f64, f64)) -> bool {
        Scale::Linear.shows(x) && self.y_scale.shows(y)
    }

    fn shown_points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| &series.points).copied().filter(|&point| self.shows(point))
    }

    /// The color of each series; a thin line has the color of the next series.
    fn colors(&self) -> Vec<usize> {
        let mut next = 0;
        let color = |series: &Series| {
            let color = next % COLORS;
            next += usize::from(series.style != Style::ThinLine);
            color
        };
        self.series.iter().map(color).collect()
    }

    fn legend(&self, colors: &[usize]) -> String {
        let mut html = String::from("<ul class=\"legend\">");
        for (series, color) in self.series.iter().zip(colors) {
            html += &format!(
                "<li class=\"{} c{color}\"><svg viewBox=\"0 0 22 10\">{}</svg>{}</li>",
                series.style.class(),
                strokes("M1 5H21", "M11 5h0", series.style),
                escape(&series.name)
            );
        }
        html + "</ul>\n"
    }

    /// Grid and curves, without text.
    fn drawing(&self, x_axis: &Axis, y_axis: &Axis, colors: &[usize]) -> String {
        let names: Vec<String> = self.series.iter().map(|series| escape(&series.name)).collect();
        let mut svg = format!(
            "<svg viewBox=\"0 0 {CANVAS} {CANVAS}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{}: {}\">\n<path class=\"grid\" d=\"",
            escape(&self.title),
            names.join(", ")
        );
        for Tick { position, .. } in y_axis.ticks() {
            svg += &format!("M0 {:.1}H{CANVAS}", CANVAS * (1.0 - position));
        }
        svg += "\"/>\n<path class=\"ticks\" d=\"";
        for Tick { position, .. } in x_axis.ticks() {
            svg += &format!("M{:.1} {CANVAS}v14", CANVAS * position);
        }
        svg += &format!("\"/>\n<path class=\"axis\" d=\"M0 {CANVAS}H{CANVAS}\"/>\n");
        let place = |(x, y)| (CANVAS * x_axis.position(x), CANVAS * (1.0 - y_axis.position(y)));
        for (series, color) in self.series.iter().zip(colors) {
            let shown = |&point: &(f64, f64)| self.shows(point).then_some(point);
            let points = thinned(&series.points.iter().map(shown).collect::<Vec<_>>());
            let curve = curve(points.iter().map(|point| point.map(place)));
            let dots: String =
                points.iter().flatten().map(|&point| place(point)).map(|(x, y)| format!("M{x:.1} {y:.1}h0")).collect();
            svg += &format!(
                "<g class=\"{} c{color}\">{}</g>\n",
                series.style.class(),
                strokes(&curve, &dots, series.style)
            );
        }
        svg + "</svg>\n"
    }

    /// The names of the series at the right, each close to the end of its curve without overlapping others.
    fn end_labels(&self, y_axis: &Axis, colors: &[usize]) -> String {
        let mut labels = Vec::new();
        for (series, &color) in self.series.iter().zip(colors) {
            let shown = series.points.iter().rev().find(|&&point| self.shows(point));
            if let Some(&(_, y)) = shown {
                labels.push((PLOT_HEIGHT_PX * (1.0 - y_axis.position(y)), series, color, y));
            }
        }
        labels.sort_by(|a, b| a.0.total_cmp(&b.0));
        let tops = spread(&labels.iter().map(|label| label.0).collect::<Vec<_>>());
        let mut html = String::new();
        for ((_, series, color, last), top) in labels.into_iter().zip(tops) {
            html += &format!(
                "<span class=\"end {} c{color}\" style=\"top:{:.2}%\"><b>{}</b><i>{}</i></span>",
                series.style.class(),
                percent(top / PLOT_HEIGHT_PX),
                escape(&series.name),
                plain(last)
            );
        }
        html
    }
}

/// The SVG paths of one series: its curve, its dots, or both.
fn strokes(curve: &str, dots: &str, style: Style) -> String {
    let curve = format!("<path d=\"{curve}\"/>");
    match style {
        Style::Line | Style::ThinLine | Style::Dashed => curve,
        Style::Points => format!("{curve}<path class=\"dots\" d=\"{dots}\"/>"),
    }
}

/// Path data of a curve with gaps where there is no point; a single point becomes a dot.
fn curve(points: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut data = String::new();
    let mut pen_is_down = false;
    for point in points {
        if let Some((x, y)) = point {
            data += &if pen_is_down { format!("L{x:.1} {y:.1}") } else { format!("M{x:.1} {y:.1}h0") };
        }
        pen_is_down = point.is_some();
    }
    data
}

/// About `MAX_POINTS` of the points: the lowest and the highest of each stretch, a gap if the stretch has one, and the
/// two ends.
fn thinned(points: &[Option<(f64, f64)>]) -> Vec<Option<(f64, f64)>> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let stretch = points.len().div_ceil(MAX_POINTS / 2);
    let mut kept = vec![0, points.len() - 1];
    for start in (0..points.len()).step_by(stretch) {
        let indices = start..points.len().min(start + stretch);
        let y_at = |&index: &usize| points[index].map_or(f64::NAN, |(_, y)| y);
        let by_y = |a: &usize, b: &usize| y_at(a).total_cmp(&y_at(b));
        let shown = || indices.clone().filter(|&index| points[index].is_some());
        kept.extend(shown().min_by(by_y));
        kept.extend(shown().max_by(by_y));
        kept.extend(indices.clone().find(|&index| points[index].is_none()));
    }
    kept.sort_unstable();
    kept.dedup();
    kept.into_iter().map(|index| points[index]).collect()
}

/// Moves ascending label positions apart by the height of a label, within the plot as long as they fit.
fn spread(tops: &[f64]) -> Vec<f64> {
    let mut tops = tops.to_vec();
    for index in 1..tops.len() {
        tops[index] = tops[index].max(tops[index - 1] + LABEL_HEIGHT_PX);
    }
    let mut limit = PLOT_HEIGHT_PX;
    for top in tops.iter_mut().rev() {
        *top = top.min(limit);
        limit = *top - LABEL_HEIGHT_PX;
    }
    tops
}

fn percent(share: f64) -> f64 {
    100.0 * share
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(y_scale: Scale, series: Vec<Series>) -> String {
        let label = String::new;
        Chart { title: label(), x_label: label(), y_label: label(), y_scale, series }.render()
    }

    fn series(name: &str, style: Style, points: &[(f64, f64)]) -> Series {
        Series { name: name.to_owned(), points: points.to_vec(), style }
    }

    #[test]
    fn a_curve_breaks_where_a_point_cannot_be_shown() {
        let check = |y_scale: Scale, middle: (f64, f64), expected: &str| {
            let points = [(0.0, 1.0), (1.0, 10.0), middle, (3.0, 1.0), (4.0, 10.0)];
            let html = chart(y_scale, vec![series("loss", Style::Line, &points)]);
            assert!(html.contains(expected), "{middle:?} on {y_scale:?}: {html}");
            assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
        };
        // a margin of 5 % above and below: 1000 / 1.1 · 0.05 = 45.5
        let whole = "M0.0 954.5h0L250.0 45.5L500.0 954.5L750.0 954.5L1000.0 45.5";
        let broken = "M0.0 954.5h0L250.0 45.5M750.0 954.5h0L1000.0 45.5";
        check(Scale::Log, (2.0, 1.0), whole);
        check(Scale::Log, (2.0, 0.0), broken);
        check(Scale::Log, (2.0, -1.0), broken);
        check(Scale::Log, (2.0, f64::NAN), broken);
        check(Scale::Log, (f64::INFINITY, 1.0), broken);
        check(Scale::Linear, (2.0, f64::INFINITY), "M750.0");
    }

    #[test]
    fn a_chart_without_values_says_so() {
        let check = |series: Vec<Series>| {
            assert!(chart(Scale::Log, series.clone()).contains("No values to show."), "{series:?}");
        };
        check(vec![]);
        check(vec![series("loss", Style::Line, &[])]);
        check(vec![series("loss", Style::Points, &[(f64::NAN, 1.0), (1.0, 0.0)])]);
    }

    #[test]
    fn an_empty_series_beside_a_full_one_is_named_in_the_legend_only() {
        let empty = series("held-out", Style::Points, &[]);
        let html = chart(Scale::Linear, vec![empty, series("training", Style::Line, &[(0.0, 1.0)])]);
        let check = |text: &str, expected: usize| assert_eq!(html.matches(text).count(), expected, "{text}");
        check("</svg>held-out</li>", 1);
        check("</svg>training</li>", 1);
        check("<b>held-out</b>", 0);
        check("<b>training</b>", 1);
    }

    #[test]
    fn a_thin_line_shares_the_color_of_the_series_that_follows() {
        let html = chart(
            Scale::Linear,
            vec![
                series("raw", Style::ThinLine, &[(0.0, 1.0)]),
                series("smooth", Style::Line, &[(0.0, 1.0)]),
                series("held-out", Style::Points, &[(0.0, 1.0)]),
            ],
        );
        let check = |group: &str| assert!(html.contains(group), "{group} in {html}");
        check("<g class=\"thin c0\">");
        check("<g class=\"line c0\">");
        check("<g class=\"points c1\">");
    }

    #[test]
    fn thinning_keeps_ends_extremes_gaps_and_order() {
        let wave = |index: usize| Some((index as f64, (index as f64 / 50.0).sin()));
        let mut points: Vec<_> = (0..20_000).map(wave).collect();
        points[0] = Some((0.0, 0.5));
        points[7_777] = Some((7_777.0, 9.0));
        points[7_778] = Some((7_778.0, -9.0));
        points[12_345] = None;
        points[19_999] = Some((19_999.0, 0.5));
        let kept = thinned(&points);
        assert!((400..=MAX_POINTS + 4).contains(&kept.len()), "{} points", kept.len());
        let check = |index: usize| assert!(kept.contains(&points[index]), "point {index} is gone");
        check(0);
        check(7_777);
        check(7_778);
        check(12_345);
        check(19_999);
        let xs: Vec<f64> = kept.iter().flatten().map(|point| point.0).collect();
        assert!(xs.is_sorted());
        assert_eq!(thinned(&points[..MAX_POINTS]), points[..MAX_POINTS]);
    }

    #[test]
    fn end_labels_do_not_overlap() {
        let check = |tops: &[f64], expected: &[f64]| assert_eq!(spread(tops), expected, "{tops:?}");
        check(&[], &[]);
        check(&[10.0, 100.0], &[10.0, 100.0]);
        check(&[10.0, 12.0, 14.0], &[10.0, 27.0, 44.0]);
        check(&[275.0, 276.0], &[263.0, 280.0]);
    }

    #[test]
    fn names_are_escaped_everywhere() {
        let evil = "<u>\"&";
        let mut chart = Chart {
            title: evil.to_owned(),
            x_label: evil.to_owned(),
            y_label: evil.to_owned(),
            y_scale: Scale::Linear,
            series: vec![series(evil, Style::Line, &[(0.0, 1.0)])],
        };
        let check = |html: &str| assert!(!html.contains("<u>") && html.contains("&lt;u&gt;"), "{html}");
        check(&chart.render());
        chart.series.clear();
        check(&chart.render());
    }
}
