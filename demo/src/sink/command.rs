//! SMTP commands, parsed strictly (RFC 5321, 4.1; RFC 1870, 6152, 6531, 4954). No I/O and no state.

/// One command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// EHLO; extensions are listed.
    Ehlo,
    /// HELO.
    Helo,
    /// MAIL FROM.
    Mail(Sender),
    /// RCPT TO with the recipient's address.
    Rcpt(String),
    /// DATA.
    Data,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// QUIT.
    Quit,
    /// VRFY.
    Vrfy,
    /// AUTH with its mechanism and initial response.
    Auth(Mechanism, Option<String>),
}

/// How a client proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// RFC 4616: one answer.
    Plain,
    /// Two answers, user and password.
    Login,
}

/// What MAIL FROM says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sender {
    /// The reverse path; empty for `<>`.
    pub(super) address: String,
    /// SIZE=, in bytes.
    pub(super) size: Option<u64>,
    /// BODY=8BITMIME.
    pub(super) eight_bit: bool,
    /// SMTPUTF8.
    pub(super) utf8: bool,
}

/// A reply that refuses a command: code and text.
pub(super) type Refusal = (u16, &'static str);

const SYNTAX: Refusal = (501, "5.5.4 syntax error in parameters");
const ADDRESS: Refusal = (501, "5.1.3 the address is not of the form <local@domain>");
const PARAMETER: Refusal = (555, "5.5.4 parameter not known or not well formed");

impl Command {
    /// Reads one line without its CRLF.
    pub(super) fn read(line: &[u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(line).map_err(|_| (500, "5.5.2 the command is not UTF-8"))?;
        if text.contains(char::is_control) {
            return Err((500, "5.5.2 control character in a command"));
        }
        let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => named(rest).map(|()| Self::Ehlo),
            "HELO" => named(rest).map(|()| Self::Helo),
            "MAIL" => sender(rest).map(Self::Mail),
            "RCPT" => recipient(rest).map(Self::Rcpt),
            "DATA" => bare(rest).map(|()| Self::Data),
            "RSET" => bare(rest).map(|()| Self::Rset),
            "QUIT" => bare(rest).map(|()| Self::Quit),
            "NOOP" => Ok(Self::Noop),
            "VRFY" => Ok(Self::Vrfy),
            "AUTH" => auth(rest),
            "STARTTLS" | "EXPN" | "HELP" | "TURN" | "BDAT" => Err((502, "5.5.1 command not offered")),
            _ => Err((500, "5.5.2 command not known")),
        }
    }
}

/// EHLO and HELO want a name.
fn named(rest: &str) -> Result<(), Refusal> {
    if rest.trim().is_empty() || rest.trim().contains(' ') { Err(SYNTAX) } else { Ok(()) }
}

/// The command takes no parameters; trailing spaces are allowed (RFC 5321, 4.1.1).
fn bare(rest: &str) -> Result<(), Refusal> {
    if rest.trim_end().is_empty() { Ok(()) } else { Err(SYNTAX) }
}

fn sender(rest: &str) -> Result<Sender, Refusal> {
    let (address, parameters) = path(rest, "FROM:")?;
    let mut sender = Sender { address: address.into(), ..Sender::default() };
    for parameter in parameters.split_ascii_whitespace() {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match (name.to_ascii_uppercase().as_str(), value.to_ascii_uppercase().as_str()) {
            ("SIZE", digits) => sender.size = Some(digits.parse().map_err(|_| PARAMETER)?),
            ("BODY", "8BITMIME") => sender.eight_bit = true,
            ("BODY", "7BIT") => sender.eight_bit = false,
            ("SMTPUTF8", "") => sender.utf8 = true,
            ("AUTH", _) => {}
            _ => return Err(PARAMETER),
        }
    }
    if !sender.address.is_ascii() && !sender.utf8 {
        return Err((553, "5.6.7 a non-ASCII address needs SMTPUTF8"));
    }
    if sender.address.is_empty() || well_formed(&sender.address) { Ok(sender) } else { Err(ADDRESS) }
}

fn recipient(rest: &str) -> Result<String, Refusal> {
    let (address, parameters) = path(rest, "TO:")?;
    match (well_formed(address), parameters.trim().is_empty()) {
        (false, _) => Err(ADDRESS),
        (true, false) => Err(PARAMETER),
        (true, true) => Ok(address.into()),
    }
}

/// Splits `FROM:<address> parameters`; no space may stand between colon and bracket.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(&'a str, &'a str), Refusal> {
    let (given, rest) = rest.split_at_checked(keyword.len()).ok_or(SYNTAX)?;
    let rest = rest.strip_prefix('<').filter(|_| given.eq_ignore_ascii_case(keyword)).ok_or(SYNTAX)?;
    let mut quoted = false;
    let end = rest.bytes().position(|byte| {
        quoted ^= byte == b'"';
        byte == b'>' && !quoted
    });
    let (address, after) = rest.split_at(end.ok_or(SYNTAX)?);
    let parameters = &after[1..];
    if parameters.is_empty() || parameters.starts_with(' ') { Ok((address, parameters)) } else { Err(SYNTAX) }
}

/// `local@domain`: lengths as in RFC 5321, 4.5.3.1; spaces and brackets in a quoted local part only.
fn well_formed(address: &str) -> bool {
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let special = |c: char| c.is_whitespace() || "<>()[],;:\\\"@".contains(c);
    let plain = !local.is_empty() && !local.contains(special);
    let literal = domain.starts_with('[') && domain.ends_with(']');
    let labels = domain.split('.').all(|label| {
        !label.is_empty()
            && !label.contains(special)
            && label.chars().all(|c| c.is_alphanumeric() || c == '-' || !c.is_ascii())
    });
    (quoted || plain) && (literal || labels) && address.len() <= 254 && local.len() <= 64
}

fn auth(rest: &str) -> Result<Command, Refusal> {
    let mut words = rest.split_ascii_whitespace();
    let mechanism = match words.next().map(str::to_ascii_uppercase).as_deref() {
        Some("PLAIN") => Mechanism::Plain,
        Some("LOGIN") => Mechanism::Login,
        Some(_) => return Err((504, "5.5.4 mechanism not offered")),
        None => return Err(SYNTAX),
    };
    let initial = words.next().map(String::from);
    if words.next().is_some() { Err(SYNTAX) } else { Ok(Command::Auth(mechanism, initial)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Command, u16> {
        Command::read(line.as_bytes()).map_err(|refusal| refusal.0)
    }

    #[test]
    fn commands_are_read_in_any_case_with_their_parameters() {
        assert_eq!(read("ehlo client.example"), Ok(Command::Ehlo));
        let mail = read("mail from:<a@example.test> size=42 body=8bitmime SMTPUTF8");
        let sender = Sender { address: "a@example.test".into(), size: Some(42), eight_bit: true, utf8: true };
        assert_eq!(mail, Ok(Command::Mail(sender)));
        assert_eq!(read("MAIL FROM:<>"), Ok(Command::Mail(Sender::default())));
        assert_eq!(read("RCPT TO:<\"a > b\"@example.test>"), Ok(Command::Rcpt("\"a > b\"@example.test".into())));
        assert_eq!(read("RCPT TO:<jörg@bücher.example>"), Ok(Command::Rcpt("jörg@bücher.example".into())));
        assert_eq!(read("AUTH PLAIN AGEAYg=="), Ok(Command::Auth(Mechanism::Plain, Some("AGEAYg==".into()))));
        assert_eq!(read("DATA "), Ok(Command::Data));
    }

    #[test]
    fn what_is_not_well_formed_is_refused_with_its_code() {
        let table = [
            ("EHLO", 501),
            ("MAIL FROM: <a@example.test>", 501),
            ("MAIL FROM:a@example.test", 501),
            ("MAIL TO:<a@example.test>", 501),
            ("MAIL FROM:<a@example.test>SIZE=1", 501),
            ("MAIL FROM:<a@example.test> SIZE=x", 555),
            ("MAIL FROM:<a@example.test> COLOUR=red", 555),
            ("MAIL FROM:<jörg@example.test>", 553),
            ("RCPT TO:<>", 501),
            ("RCPT TO:<a>", 501),
            ("RCPT TO:<a@b@example.test>", 501),
            ("RCPT TO:<a b@example.test>", 501),
            ("RCPT TO:<a@exa mple.test>", 501),
            ("RCPT TO:<a@example..test>", 501),
            ("RCPT TO:<a@example.test> SIZE=1", 555),
            ("RCPT TO:<a@example.test", 501),
            ("DATA now", 501),
            ("AUTH GSSAPI", 504),
            ("STARTTLS", 502),
            ("Subject: hello", 500),
            ("NO\tOP", 500),
            ("", 500),
        ];
        for (line, code) in table {
            assert_eq!(read(line).unwrap_err(), code, "{line:?}");
        }
        assert_eq!(Command::read(b"RCPT TO:<\xff@example.test>").unwrap_err().0, 500);
    }
}
