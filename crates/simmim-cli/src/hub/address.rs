//! Addresses of models on a hub: `hf://owner/name[@revision][/file]`.

use simmim::Error;

/// What every address begins with.
pub(crate) const SCHEME: &str = "hf://";

/// Length of the name of a commit.
const COMMIT_LEN: usize = 40;

/// The address of a model, or of a file of it.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    /// As it was typed.
    pub(super) text: String,
    pub(super) owner: String,
    pub(super) name: String,
    /// A branch, tag or commit.
    pub(super) revision: String,
    /// A file of the model, with its folders.
    pub(super) file: Option<String>,
}

impl Address {
    /// Parses an address; `None` if the text is none.
    ///
    /// # Errors
    /// If it begins like one and is not.
    pub(super) fn of(text: &str) -> Result<Option<Self>, Error> {
        let Some(rest) = text.strip_prefix(SCHEME) else { return Ok(None) };
        let wrong = |what: &str| Error::Input {
            what: format!("`{text}`: {what}"),
            hint: Some("addresses are hf://OWNER/NAME, hf://OWNER/NAME@REVISION or hf://OWNER/NAME/FILE".into()),
        };
        let mut parts = rest.splitn(3, '/');
        let (owner, name) = match (parts.next(), parts.next()) {
            (Some(owner), Some(name)) if !owner.is_empty() && !name.is_empty() => (owner, name),
            _ => return Err(wrong("a model has an owner and a name")),
        };
        let (name, revision) = name.split_once('@').unwrap_or((name, "main"));
        let revision = revision.replace("%2F", "/").replace("%2f", "/");
        let is_path = |path: &str| path.split('/').all(is_file_name);
        if !is_file_name(owner) || !is_file_name(name) || !is_path(&revision) {
            return Err(wrong("names have letters, digits, `-`, `_` and `.`; a `/` in a revision is written %2F"));
        }
        let file = parts.next().filter(|file| !file.is_empty()).map(str::to_owned);
        if file.as_ref().is_some_and(|file| !is_path(file)) {
            return Err(wrong("a file has letters, digits, `-`, `_`, `.` and folders before it"));
        }
        Ok(Some(Self { text: text.to_owned(), owner: owner.to_owned(), name: name.to_owned(), revision, file }))
    }

    /// The commit, if the revision is the name of one.
    pub(super) fn commit(&self) -> Option<&str> {
        is_commit(&self.revision).then_some(self.revision.as_str())
    }

    /// The folder of the file, if it is in one.
    pub(super) fn folder(&self) -> Option<&str> {
        self.file.as_ref().and_then(|file| file.rsplit_once('/')).map(|(folder, _)| folder)
    }
}

/// Whether this may be the name of a file: nothing that leads out of a folder, or means something in an address.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || "-_.+=".contains(c);
    !name.is_empty() && name.chars().all(is_letter) && !name.chars().all(|c| c == '.')
}

/// Whether this is the name of a commit.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_LEN && text.chars().all(|c| c.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_an_owner_a_name_a_revision_and_a_file() {
        let check = |text: &str, expected: (&str, &str, &str, Option<&str>)| {
            let found = Address::of(text).unwrap().unwrap();
            let file = found.file.as_deref();
            assert_eq!((found.owner.as_str(), found.name.as_str(), found.revision.as_str(), file), expected, "{text}");
        };
        check("hf://facebook/dinov2-small", ("facebook", "dinov2-small", "main", None));
        check("hf://timm/vit.x/", ("timm", "vit.x", "main", None));
        check("hf://a/b@refs%2Fpr%2F1/c/d.bin", ("a", "b", "refs/pr/1", Some("c/d.bin")));
        check("hf://a/b/model.safetensors", ("a", "b", "main", Some("model.safetensors")));
        assert_eq!(Address::of("runs/first").unwrap(), None);
        for wrong in
            ["hf://a", "hf://", "hf:///b", "hf://a/b@", "hf://a/../b", "hf://a/b/../../c", "hf://a/b?x=1", "hf://a/b c"]
        {
            assert!(Address::of(wrong).is_err(), "{wrong}");
        }
    }
}
