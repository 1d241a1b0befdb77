//! A table of what was promised, and of what has happened.

use std::{fmt::Display, process::ExitCode};

#[derive(Default)]
pub(crate) struct Report {
    surprises: usize,
}

impl Report {
    pub(crate) fn comparison(&mut self, text: &str) {
        println!("\n{text:70}{:16}not shared", "shared");
    }

    pub(crate) fn heading(&mut self, text: &str) {
        println!("\n{text}");
    }

    /// Prints a figure with and without a store, each next to the value that it should have.
    pub(crate) fn row<T: Display + PartialEq>(&mut self, name: &str, shared: (T, T), alone: (T, T)) {
        let cells = [self.cell(shared), self.cell(alone)];
        println!("  {name:67} {:15} {}", cells[0], cells[1]);
    }

    /// Prints a figure with a store.
    pub(crate) fn only<T: Display + PartialEq>(&mut self, name: &str, found: T, promised: T) {
        println!("  {name:68}{}", self.cell((found, promised)));
    }

    /// Prints what nothing is promised about.
    pub(crate) fn note(&mut self, name: &str, shared: impl Display, alone: impl Display) {
        println!("  {name:68}{:16}{alone}", shared.to_string());
    }

    pub(crate) fn conclusion(self) -> ExitCode {
        if self.surprises > 0 {
            println!("\n{} of these are not as promised", self.surprises);
            return ExitCode::FAILURE;
        }
        println!("\nall of this is as promised");
        ExitCode::SUCCESS
    }

    fn cell<T: Display + PartialEq>(&mut self, (found, promised): (T, T)) -> String {
        if found == promised {
            return found.to_string();
        }
        self.surprises += 1;
        format!("{found} (not {promised}!)")
    }
}
