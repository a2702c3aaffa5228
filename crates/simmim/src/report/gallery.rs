//! Small pictures with their names, side by side.

use super::escape;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// Small pictures.
#[derive(Clone, Debug, PartialEq)]
pub struct Gallery {
    /// Caption above the pictures.
    pub caption: String,
    /// The pictures in reading order.
    pub pictures: Vec<Thumbnail>,
    /// The number of pictures that are not shown.
    pub more: usize,
}

/// A small picture and what it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Thumbnail {
    /// Where it comes from; its end, behind the folder or the archive, is shown below the picture, and all of it where a pointer rests.
    pub name: String,
    /// A remark below the name.
    pub note: String,
    /// A PNG file.
    pub png: Vec<u8>,
    /// The longer side of the picture in pixels.
    pub width_px: usize,
}

/// Pictures of up to this longer side are enlarged on every display, and are shown with sharp pixels.
const TINY_PX: usize = 64;

impl Gallery {
    /// The pictures as a `figure` element, styled by `style.css`.
    pub(super) fn render(&self) -> String {
        let pictures: String = self.pictures.iter().map(Thumbnail::render).collect();
        let more = match self.more {
            0 => String::new(),
            more => format!("<li class=\"more\">and {more} more</li>\n"),
        };
        format!(
            "<figure class=\"gallery\"><figcaption>{}</figcaption>\n<ul>\n{pictures}{more}</ul></figure>\n",
            escape(&self.caption)
        )
    }
}

impl Thumbnail {
    fn render(&self) -> String {
        let (name, note) = (escape(&self.name), escape(&self.note));
        let short = escape(self.name.rsplit(['/', '\\', ':']).next().unwrap_or_default());
        let class = if self.width_px <= TINY_PX { " class=\"tiny\"" } else { "" };
        let note = if note.is_empty() { note } else { format!("<span>{note}</span>") };
        let png = STANDARD.encode(&self.png);
        format!(
            "<li title=\"{name}\"><img{class} src=\"data:image/png;base64,{png}\" alt=\"{name}\"><span>{short}</span>{note}</li>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_named_by_its_end_and_small_ones_are_sharp() {
        let picture = |width_px| Thumbnail { name: "a/<b>/c.png".into(), note: String::new(), png: vec![], width_px };
        let gallery = |pictures, more| Gallery { caption: String::new(), pictures, more }.render();
        let html = gallery(vec![picture(64)], 0);
        assert!(html.contains("<li title=\"a/&lt;b&gt;/c.png\"><img class=\"tiny\" src="), "{html}");
        assert!(html.contains("<span>c.png</span></li>") && !html.contains("more"), "{html}");
        let member = Thumbnail { name: "a/b.tar:c/1.png".into(), ..picture(64) };
        assert!(gallery(vec![member], 0).contains("<span>1.png</span>"));
        let html = gallery(vec![picture(65)], 3);
        assert!(!html.contains("tiny") && html.contains("and 3 more"), "{html}");
    }
}
