//! The page of a report: numbers, charts, pictures, tables and text in one self-contained HTML file.

use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::bars::Bars;
use super::chart::Chart;
use super::escape;
use super::gallery::Gallery;
use super::map::MapFigure;
use crate::run::files::write_atomically;

const STYLE: &str = include_str!("style.css");

/// A page without external resources, for light and dark displays of any width. Only a map has a script.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// Title of the page.
    pub title: String,
    /// One line below the title.
    pub subtitle: String,
    /// Sections from top to bottom.
    pub sections: Vec<Section>,
}

/// A section of a page. All text is escaped, so markup in it has no effect.
#[derive(Clone, Debug, PartialEq)]
pub enum Section {
    /// A heading.
    Heading(String),
    /// Paragraphs, separated by blank lines.
    Text(String),
    /// Key figures, side by side.
    Numbers(Vec<Number>),
    /// A chart.
    Chart(Chart),
    /// A bar for each of some counts.
    Bars(Bars),
    /// Small pictures, side by side.
    Gallery(Gallery),
    /// Points, one for each image.
    Map(MapFigure),
    /// A picture.
    Image {
        /// Caption below the picture.
        caption: String,
        /// A PNG file.
        png: Vec<u8>,
        /// Width in pixels at which it is shown if there is space.
        width_px: usize,
    },
    /// A table; columns of numbers are right-aligned.
    Table {
        /// Caption above the table.
        caption: String,
        /// Names of the columns.
        header: Vec<String>,
        /// Rows with as many cells as the header.
        rows: Vec<Vec<String>>,
    },
    /// Verbatim text: a recipe, a command.
    Code {
        /// Caption above the text.
        caption: String,
        /// The text.
        text: String,
    },
}

/// A key figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Number {
    /// Its name.
    pub label: String,
    /// Its value with its unit.
    pub value: String,
    /// An explanation below the value.
    pub note: Option<String>,
}

impl Page {
    /// Renders the page as HTML.
    pub fn render(&self) -> String {
        let title = escape(&self.title);
        let mut html = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
             <header>\n<h1>{title}</h1>\n<p>{}</p>\n</header>\n<main>\n",
            escape(&self.subtitle)
        );
        for section in &self.sections {
            html += &section.render();
        }
        html + "</main>\n</body>\n</html>\n"
    }

    /// Writes the page to a file, atomically.
    ///
    /// # Errors
    /// If the file cannot be written; the message names it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        write_atomically(path, self.render().as_bytes())
    }
}

impl Section {
    fn render(&self) -> String {
        match self {
            Section::Heading(text) => format!("<h2>{}</h2>\n", escape(text)),
            Section::Text(text) => paragraphs(text),
            Section::Numbers(numbers) => {
                let numbers: String = numbers.iter().map(Number::render).collect();
                format!("<dl class=\"numbers\">\n{numbers}</dl>\n")
            }
            Section::Chart(chart) => chart.render(),
            Section::Bars(bars) => bars.render(),
            Section::Gallery(gallery) => gallery.render(),
            Section::Map(map) => map.render(),
            Section::Image { caption, png, width_px } => {
                let caption = escape(caption);
                format!(
                    "<figure><img src=\"data:image/png;base64,{}\" width=\"{width_px}\" alt=\"{caption}\">\
                     <figcaption>{caption}</figcaption></figure>\n",
                    STANDARD.encode(png)
                )
            }
            Section::Table { caption, header, rows } => table(caption, header, rows),
            Section::Code { caption, text } => format!(
                "<figure><figcaption>{}</figcaption><pre><code>{}</code></pre></figure>\n",
                escape(caption),
                escape(text)
            ),
        }
    }
}

impl Number {
    fn render(&self) -> String {
        let note = self.note.as_ref().map(|note| format!("<dd class=\"note\">{}</dd>", escape(note)));
        format!(
            "<div><dt>{}</dt><dd>{}</dd>{}</div>\n",
            escape(&self.label),
            escape(&self.value),
            note.unwrap_or_default()
        )
    }
}

fn paragraphs(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    paragraphs.map(|paragraph| format!("<p>{}</p>\n", escape(paragraph))).collect()
}

fn table(caption: &str, header: &[String], rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).chain([header.len()]).max().unwrap_or(0);
    let classes: Vec<&str> = (0..columns)
        .map(|column| {
            let mut cells = rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_empty()).peekable();
            let is_of_numbers = cells.peek().is_some() && cells.all(|cell| is_number(cell));
            if is_of_numbers { " class=\"number\"" } else { "" }
        })
        .collect();
    let line = |tag: &str, cells: &[String]| {
        let cells: String =
            cells.iter().zip(&classes).map(|(cell, class)| format!("<{tag}{class}>{}</{tag}>", escape(cell))).collect();
        format!("<tr>{cells}</tr>\n")
    };
    let head = line("th", header);
    let body: String = rows.iter().map(|row| line("td", row)).collect();
    format!(
        "<figure class=\"table\"><figcaption>{}</figcaption><div class=\"scroll\"><table>\n\
         <thead>{head}</thead>\n<tbody>{body}</tbody>\n</table></div></figure>\n",
        escape(caption)
    )
}

/// Whether a cell is a number, with or without sign, grouping, unit or error: `−0.5`, `1,024`, `83.8 %`, `12.1 ± 0.3`,
/// `2.1×`, or the dash of a missing value.
fn is_number(cell: &str) -> bool {
    let is_missing = matches!(cell, "-" | "–" | "—");
    let has_digit = cell.contains(|character: char| character.is_ascii_digit());
    let starts_like_one = cell.starts_with(|c: char| c.is_ascii_digit() || "+-−.±".contains(c));
    let rest_is_short = cell.chars().filter(|character| character.is_alphabetic()).count() <= 3;
    is_missing || (has_digit && starts_like_one && rest_is_short)
}

#[cfg(test)]
mod tests {
    use super::super::{Bar, Thumbnail};
    use super::*;

    fn render(section: Section) -> String {
        section.render()
    }

    #[test]
    fn no_section_lets_markup_through() {
        let evil = || "<script>alert('&\"')</script>".to_owned();
        let check = |section: Section| {
            let html = section.render();
            assert!(!html.contains("<script"), "{html}");
            assert!(html.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)"), "{html}");
        };
        check(Section::Heading(evil()));
        check(Section::Text(evil()));
        check(Section::Numbers(vec![Number { label: evil(), value: evil(), note: Some(evil()) }]));
        let bars = vec![Bar { label: evil(), count: 1 }];
        check(Section::Bars(Bars { title: evil(), bars }));
        let pictures = vec![Thumbnail { name: evil(), note: evil(), png: vec![], width_px: 1 }];
        check(Section::Gallery(Gallery { caption: evil(), pictures, more: 1 }));
        check(Section::Image { caption: evil(), png: vec![], width_px: 1 });
        check(Section::Table { caption: evil(), header: vec![evil()], rows: vec![vec![evil()]] });
        check(Section::Code { caption: evil(), text: evil() });
        let page = Page { title: evil(), subtitle: evil(), sections: vec![] };
        assert!(!page.render().contains("<script"));
    }

    #[test]
    fn blank_lines_separate_paragraphs() {
        let check = |text: &str, expected: &str| {
            assert_eq!(render(Section::Text(text.to_owned())), expected, "{text:?}");
        };
        check("", "");
        check("one\ntwo", "<p>one\ntwo</p>\n");
        check("one\n\ntwo\n", "<p>one</p>\n<p>two</p>\n");
        check("one\r\n\r\n\r\n\r\ntwo", "<p>one</p>\n<p>two</p>\n");
    }

    #[test]
    fn columns_of_numbers_are_right_aligned() {
        let check = |cells: &[&str], expected: bool| {
            let rows: Vec<Vec<String>> = cells.iter().map(|cell| vec![(*cell).to_owned()]).collect();
            let html = table("", &["column".to_owned()], &rows);
            assert_eq!(html.contains("class=\"number\""), expected, "{cells:?}");
        };
        check(&["1", "−2.5", "1,024"], true);
        check(&["83.8 %", "+0.4", "–"], true);
        check(&["12.1 ± 0.3", "2.1×", "14 ms"], true);
        check(&["1", "random"], false);
        check(&["vit-b16"], false);
        check(&["3 of the labels"], false);
        check(&[""], false);
        check(&[], false);
    }

    #[test]
    fn a_row_of_another_length_than_the_header_is_shown_whole() {
        let html = table("", &["one".to_owned()], &[vec!["a".to_owned(), "b".to_owned()], vec![]]);
        assert!(html.contains("<td>a</td><td>b</td>"), "{html}");
    }

    #[test]
    fn a_picture_is_inside_the_page() {
        let html = render(Section::Image { caption: "hidden".to_owned(), png: b"PNG".to_vec(), width_px: 320 });
        assert!(html.contains("src=\"data:image/png;base64,UE5H\" width=\"320\" alt=\"hidden\""), "{html}");
    }

    #[test]
    fn the_written_page_is_the_rendered_one_and_loads_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.html");
        let page = Page {
            title: "Run".to_owned(),
            subtitle: String::new(),
            sections: vec![Section::Heading("Curves".to_owned())],
        };
        page.write(&path).unwrap();
        let html = std::fs::read_to_string(&path).unwrap();
        assert_eq!(html, page.render());
        for reference in ["http:", "https:", "src=\"/", "@import", "url(", "<script"] {
            assert!(!html.contains(reference), "{reference}");
        }
    }
}
