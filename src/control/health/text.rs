//! A question and its answer over the configuration socket: `health=ready`, and `reason=` for each
//! reason why not.
//!
//! Other implementations refuse the request. [UAPI]

use super::Question;
use crate::control::uapi::get::{ReplyError, errno_of};
use crate::control::uapi::{MAX_LINE_BYTES, Operation, reply};

const KEY: &str = "health";
const REASON: &str = "reason=";

/// The request.
pub fn request(question: Question) -> String {
    format!("{KEY}={}\n\n", question.name())
}

/// The question that the first line of a request asks, if it is one.
pub fn question(line: &[u8]) -> Option<Question> {
    let (key, name) = std::str::from_utf8(line).ok()?.split_once('=')?;
    let asked = Question::ALL.into_iter().find(|question| question.name() == name);
    asked.filter(|_| key == KEY)
}

/// The reply.
pub fn render(reasons: &[String]) -> String {
    let mut text = String::new();
    for reason in reasons {
        // Ours are short and of one line; whoever makes one that is not loses its end.
        let room = MAX_LINE_BYTES - REASON.len();
        let line: String = reason.chars().take_while(|&c| c != '\n').take(room / 4).collect();
        text.push_str(&format!("{REASON}{line}\n"));
    }
    text + &reply(Operation::Get, Ok(()))
}

/// Reads a reply line by line.
#[derive(Debug, Default)]
pub struct AnswerParser {
    reasons: Vec<String>,
    errno: Option<i64>,
}

impl AnswerParser {
    /// Takes the line of that number, counted from 1; yields the reasons after the last.
    ///
    /// # Errors
    /// [`ReplyError::Malformed`] for what is no reply, [`ReplyError::Refused`] if the device said so.
    pub fn line(&mut self, number: usize, line: &str) -> Result<Option<Vec<String>>, ReplyError> {
        let malformed = ReplyError::Malformed { line: number };
        match (line.split_once('='), self.errno) {
            (Some(("reason", reason)), _) => self.reasons.push(reason.to_owned()),
            (Some(("errno", number)), _) => {
                self.errno = Some(number.parse().map_err(|_| malformed)?);
            }
            (Some(_), _) => {}
            (None, Some(0)) if line.is_empty() => {
                return Ok(Some(std::mem::take(&mut self.reasons)));
            }
            (None, Some(number)) if line.is_empty() => {
                return Err(ReplyError::Refused(errno_of(number)));
            }
            (None, _) => return Err(malformed),
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Vec<String>>, ReplyError> {
        let mut parser = AnswerParser::default();
        for (number, line) in text.lines().enumerate() {
            if let Some(reasons) = parser.line(number + 1, line)? {
                return Ok(Some(reasons));
            }
        }
        Ok(None)
    }

    #[test]
    fn reasons_come_back_as_rendered_and_a_question_as_asked() {
        let reasons = vec!["peer(a…b): no handshake = none".to_owned(), "two".to_owned()];
        assert_eq!(parse(&render(&reasons)), Ok(Some(reasons)));
        assert_eq!(parse(&render(&[])), Ok(Some(vec![])));
        for asked in Question::ALL {
            let text = request(asked);
            assert_eq!(question(text.trim_end().as_bytes()), Some(asked));
        }
        assert_eq!(question(b"health=well"), None);
        assert_eq!(question(b"wealth=live"), None);
    }

    #[test]
    fn what_is_no_reply_is_refused_and_no_line_is_too_long_for_a_client() {
        assert!(matches!(parse("errno=22\n\n"), Err(ReplyError::Refused(_))));
        assert_eq!(parse("nonsense\n"), Err(ReplyError::Malformed { line: 1 }));
        let long = render(&["…".repeat(5000), "two\nlines".to_owned()]);
        assert!(long.lines().all(|line| line.len() <= MAX_LINE_BYTES));
        assert_eq!(parse(&long).unwrap().unwrap()[1], "two");
    }
}
