//! A text as a QR code for a terminal.

use std::fmt::Write;

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

/// A frame that readers need around the code.
const QUIET: usize = 4;

/// A code, drawn two modules to a character.
pub struct Drawing {
    code: QrCode,
}

impl Drawing {
    /// `None` if the text is longer than a code can hold.
    pub fn of(text: &str) -> Option<Self> {
        // The least correction makes for the largest modules: a screen has no stains.
        let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
        Some(Self { code })
    }

    /// In characters.
    pub fn columns(&self) -> usize {
        self.code.width() + 2 * QUIET
    }

    /// The code in lines. `coloured`: black on white whatever the terminal's colours are; otherwise
    /// it looks right where text is light on dark.
    pub fn lines(&self, coloured: bool) -> Zeroizing<String> {
        const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
        const RESET: &str = "\x1b[0m";
        let size = self.columns() * (self.columns() / 2 + 1) * 3 + 8192;
        let mut text = Zeroizing::new(String::with_capacity(size));
        for row in (0..self.columns()).step_by(2) {
            let characters = (0..self.columns()).map(|column| {
                let (above, below) = (self.is_dark(column, row), self.is_dark(column, row + 1));
                // What is drawn is the dark on a white ground, the light on a dark one.
                match if coloured { (above, below) } else { (!above, !below) } {
                    (true, true) => '█',
                    (true, false) => '▀',
                    (false, true) => '▄',
                    (false, false) => ' ',
                }
            });
            let line: Zeroizing<String> = Zeroizing::new(characters.collect());
            let (start, end) = if coloured { (BLACK_ON_WHITE, RESET) } else { ("", "") };
            let written = writeln!(*text, "{start}{}{end}", *line);
            debug_assert!(written.is_ok(), "writing to a String cannot fail");
        }
        text
    }

    /// The frame, and what lies beyond it, is light.
    fn is_dark(&self, column: usize, row: usize) -> bool {
        let inside = QUIET..QUIET + self.code.width();
        inside.contains(&column)
            && inside.contains(&row)
            && self.code[(column - QUIET, row - QUIET)] == Color::Dark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a reader sees: dark modules, row by row.
    fn seen(lines: &str, coloured: bool) -> Vec<Vec<bool>> {
        let mut rows = Vec::new();
        for line in lines.lines() {
            let line =
                line.trim_start_matches("\x1b[38;5;16;48;5;231m").trim_end_matches("\x1b[0m");
            let drawn =
                |half: char| line.chars().map(|c| (c == '█' || c == half) == coloured).collect();
            rows.push(drawn('▀'));
            rows.push(drawn('▄'));
        }
        rows
    }

    #[test]
    fn the_code_is_framed_and_drawn_to_the_module_with_colours_and_without() {
        let drawing = Drawing::of("[Interface]\nPrivateKey = x\n").unwrap();
        let code = QrCode::with_error_correction_level("[Interface]\nPrivateKey = x\n", EcLevel::L);
        let code = code.unwrap();
        for coloured in [true, false] {
            let rows = seen(&drawing.lines(coloured), coloured);
            assert!(rows.iter().all(|row| row.len() == drawing.columns()));
            for (y, row) in rows.iter().enumerate() {
                for (x, &dark) in row.iter().enumerate() {
                    let inside =
                        (4..4 + code.width()).contains(&x) && (4..4 + code.width()).contains(&y);
                    let expected = inside && code[(x - 4, y - 4)] == Color::Dark;
                    assert_eq!(dark, expected, "{x}, {y}");
                }
            }
        }
    }

    #[test]
    fn a_text_that_no_code_can_hold_has_none() {
        assert!(Drawing::of(&"x".repeat(2953)).is_some());
        assert!(Drawing::of(&"x".repeat(2954)).is_none());
    }
}
