//! A histogram as rows of a label, a bar as inline SVG, and a count, which fit a narrow display too.

use super::escape;

/// Counts, each shown as a bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// Title above the bars.
    pub title: String,
    /// Bars from top to bottom.
    pub bars: Vec<Bar>,
}

/// A count and what it counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What is counted.
    pub label: String,
    /// How many.
    pub count: usize,
}

impl Bars {
    /// The bars as a `figure` element, styled by `style.css`; the longest one has the width of the page.
    pub(super) fn render(&self) -> String {
        let most = self.bars.iter().map(|bar| bar.count).max().unwrap_or(0).max(1);
        let row = |bar: &Bar| {
            let label = escape(&bar.label);
            let width = 100.0 * bar.count as f64 / most as f64;
            format!(
                "<div><span title=\"{label}\">{label}</span><svg viewBox=\"0 0 100 10\" preserveAspectRatio=\"none\" \
                 aria-hidden=\"true\"><rect width=\"{width:.2}\" height=\"10\"/></svg><span>{}</span></div>\n",
                bar.count
            )
        };
        let rows: String = self.bars.iter().map(row).collect();
        let title = escape(&self.title);
        format!("<figure class=\"bars\"><figcaption>{title}</figcaption>\n{rows}</figure>\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_in_proportion_to_their_counts() {
        let bars = |counts: &[usize]| {
            let bars = counts.iter().map(|count| Bar { label: "x".into(), count: *count }).collect();
            Bars { title: String::new(), bars }.render()
        };
        let html = bars(&[50, 0, 200]);
        for (width, count) in [("25.00", 50), ("0.00", 0), ("100.00", 200)] {
            let expected = format!("<rect width=\"{width}\" height=\"10\"/></svg><span>{count}</span>");
            assert!(html.contains(&expected), "{expected} in {html}");
        }
        assert!(bars(&[0]).contains("<rect width=\"0.00\""));
    }
}
