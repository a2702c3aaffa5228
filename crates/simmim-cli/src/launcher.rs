//! Starts the command that is linked with libtorch, or says what to do where the library is missing. This program is not linked
//! with it: the system would end it with a message of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The program that is linked, beside this one.
const LINKED: &str = "simmim-libtorch";

/// The library, and the variable that names more folders of libraries.
const LIBRARY: (&str, &str) = match cfg!(target_os = "macos") {
    true => ("libtorch_cpu.dylib", "DYLD_LIBRARY_PATH"),
    false => ("libtorch_cpu.so", "LD_LIBRARY_PATH"),
};

/// Where the library was when this was built.
const BUILT_WITH: &str = match option_env!("SIMMIM_LIBTORCH_FOLDER") {
    Some(folder) => folder,
    None => "",
};

/// Exit code for what the user has to change, as of the command.
const USAGE: u8 = 2;

/// Becomes the linked program.
pub(crate) fn main() -> ExitCode {
    let more = std::env::var_os(LIBRARY.1).unwrap_or_default();
    let (what, hint) = if is_somewhere(LIBRARY.0, &more) {
        let own = std::env::current_exe().and_then(std::fs::canonicalize).unwrap_or_default();
        let linked = own.with_file_name(LINKED).with_extension(std::env::consts::EXE_EXTENSION);
        let why = if linked == own {
            "it is this program, under the name of the one that it starts".to_owned() // and it would start itself forever
        } else {
            let mut command = Command::new(&linked);
            command.args(std::env::args_os().skip(1));
            become_it(&mut command).to_string()
        };
        (
            format!("`{}` cannot be started: {why}", linked.display()),
            format!("the build made two programs: {LINKED} belongs beside this program"),
        )
    } else {
        missing(&more)
    };
    eprintln!("error: {what}\nhint: {hint}");
    ExitCode::from(USAGE)
}

/// Whether a library lies in one of the folders in which the system will look for it.
fn is_somewhere(library: &str, more: &OsStr) -> bool {
    let of_system = ["/lib", "/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from);
    std::env::split_paths(more)
        .chain([PathBuf::from(BUILT_WITH)])
        .chain(of_system)
        .any(|folder| !folder.as_os_str().is_empty() && folder.join(library).is_file())
}

/// What is wrong where the library is not found, and what to do.
fn missing(more: &OsStr) -> (String, String) {
    let (library, variable) = LIBRARY;
    let also = if more.is_empty() { String::new() } else { format!(", nor in {variable}") };
    let what = format!("libtorch is missing: there is no `{}`{also}", Path::new(BUILT_WITH).join(library).display());
    let hint = format!(
        "set {variable} to the folder `torch/lib` of PyTorch 2.13.0, install `torch==2.13.0` where it was, or build again"
    );
    (what, hint)
}

#[cfg(unix)]
fn become_it(command: &mut Command) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    command.arg0(std::env::args_os().next().unwrap_or("simmim".into())).exec()
}

#[cfg(not(unix))]
fn become_it(command: &mut Command) -> std::io::Error {
    match command.status() {
        Ok(status) => std::process::exit(status.code().unwrap_or(1)),
        Err(error) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_with_what_to_set() {
        assert!(is_somewhere(LIBRARY.0, OsStr::new(""))); // where this was built
        assert!(!is_somewhere("libtorch_of_nobody.so", OsStr::new("/nowhere")));
        let (what, hint) = missing(OsStr::new("/nowhere"));
        assert!(what.contains(LIBRARY.0) && what.contains(LIBRARY.1), "{what}");
        assert!(hint.contains(LIBRARY.1) && hint.contains("torch==2.13.0"), "{hint}");
    }
}
