//! Which method and path a manifest declares, and which paths are refused whatever it says.

/// Bytes of a path at most.
const PATH_BYTES_MAX: usize = 2 * 1024;

/// A method and a path template; a segment may hold one placeholder in braces, which
/// stands for at least one character of that segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    endpoint: u16,
    method: String,
    segments: Vec<Segment>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// What stands before and after the placeholder.
    Open {
        before: String,
        after: String,
    },
}

/// Why a declared route is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Only methods that vendors' APIs use.
    #[error("method {0:?}: wanted GET, POST, PUT, PATCH or DELETE")]
    Method(String),
    /// The template is no path.
    #[error("path {path:?} {fault}")]
    Path {
        /// As declared.
        path: String,
        /// What is wrong.
        fault: PathFault,
    },
    /// Braces are not in pairs, or several are in one segment.
    #[error("path {0:?}: wanted at most one {{placeholder}} in a segment")]
    Placeholder(String),
}

/// What is wrong with a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathFault {
    /// Among them full URLs.
    #[error("does not begin with a single /")]
    NotRooted,
    /// `//` means different things to different servers.
    #[error("has an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or percent-encoded.
    #[error("has a dot segment")]
    DotSegment,
    /// `?`, `#`, `\`, a space, a control, a non-ASCII character, or one of these percent-encoded.
    #[error("has a character that does not belong into a path")]
    Character,
    /// `%` without two hexadecimal digits.
    #[error("has a broken percent escape")]
    Escape,
    /// Longer than any vendor's.
    #[error("is longer than {PATH_BYTES_MAX} bytes")]
    TooLong,
}

impl Route {
    /// Takes a manifest's route.
    ///
    /// # Errors
    ///
    /// A [`RouteError`]; the plugin is not admitted.
    pub fn parse(endpoint: u16, method: &str, path: &str) -> Result<Route, RouteError> {
        if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method) {
            return Err(RouteError::Method(method.into()));
        }
        let literal: String = path.chars().filter(|character| !"{}".contains(*character)).collect();
        check_path(&literal).map_err(|fault| RouteError::Path { path: path.into(), fault })?;
        let segment = |text| Segment::parse(text).ok_or_else(|| RouteError::Placeholder(path.into()));
        let segments = path[1..].split('/').map(segment).collect::<Result<_, _>>()?;
        Ok(Route { endpoint, method: method.into(), segments })
    }

    /// Whether this is the method and the path of a call; the path must have been checked.
    pub(crate) fn allows(&self, endpoint: u16, method: &str, path: &str) -> bool {
        let Some(path) = path.strip_prefix('/') else { return false };
        let same_length = path.split('/').count() == self.segments.len();
        let same_segments =
            || path.split('/').zip(&self.segments).all(|(text, segment)| segment.matches(text));
        self.endpoint == endpoint && self.method == method && same_length && same_segments()
    }
}

impl Segment {
    fn parse(text: &str) -> Option<Segment> {
        let Some((before, rest)) = text.split_once('{') else {
            return (!text.contains('}')).then(|| Segment::Literal(text.into()));
        };
        let (name, after) = rest.split_once('}')?;
        let stray = [before, name, after].iter().any(|part| part.contains(['{', '}']));
        (!stray && !name.is_empty()).then(|| Segment::Open { before: before.into(), after: after.into() })
    }

    fn matches(&self, text: &str) -> bool {
        match self {
            Segment::Literal(literal) => literal == text,
            Segment::Open { before, after } => text
                .strip_prefix(before.as_str())
                .and_then(|rest| rest.strip_suffix(after.as_str()))
                .is_some_and(|open| !open.is_empty()),
        }
    }
}

/// Refuses every path that a server might read as another one.
pub(crate) fn check_path(path: &str) -> Result<(), PathFault> {
    if path.len() > PATH_BYTES_MAX {
        return Err(PathFault::TooLong);
    }
    let Some(segments) = path.strip_prefix('/') else { return Err(PathFault::NotRooted) };
    if segments.starts_with('/') {
        return Err(PathFault::NotRooted);
    }
    for segment in segments.split('/') {
        check_segment(segment)?;
    }
    Ok(())
}

fn check_segment(segment: &str) -> Result<(), PathFault> {
    if segment.is_empty() {
        return Err(PathFault::EmptySegment);
    }
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        let (byte, escaped) = match byte {
            b'%' => {
                let pair = (bytes.next().and_then(hex), bytes.next().and_then(hex));
                let (Some(high), Some(low)) = pair else { return Err(PathFault::Escape) };
                (high << 4 | low, true)
            }
            byte => (byte, false),
        };
        let plain = byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte);
        // An escape may stand for what cannot be written, but not for what separates or hides;
        // nor for another escape, which a second decoder would open.
        let allowed = if escaped { byte > b' ' && !b"/\\%?#\x7f".contains(&byte) } else { plain };
        if !allowed {
            return Err(PathFault::Character);
        }
        decoded.push(byte);
    }
    match decoded.as_slice() {
        b"." | b".." => Err(PathFault::DotSegment),
        _ => Ok(()),
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
