//! A directory as a page: plain, so that it is read in anything, in parts where there are many files.

use std::fmt::Write;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::blocks::server::files::{Directory, Refusal};

/// The page of the directory `name`, from behind the entry `after` on.
pub(super) fn page(directory: &Directory, name: &str, after: &str) -> Result<String, Refusal> {
    let listing = directory.list_level(name, after, ENTRIES_MAX)?;
    let title = escaped(if name.is_empty() { "/" } else { name });
    let mut html = format!(
        "<!doctype html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n<ul>\n"
    );
    if !name.is_empty() {
        html.push_str("<li><a href=\"../\">../</a></li>\n");
    }
    let prefix = if name.is_empty() { 0 } else { name.len() + 1 };
    for entry in &listing.files {
        let (link, shown) = (encoded(&entry.name), escaped(&entry.name[prefix..]));
        let length = if entry.name.ends_with('/') {
            String::new()
        } else {
            format!(" {} bytes", entry.length)
        };
        // Writing to a string never fails.
        let _ = writeln!(html, "<li><a href=\"/{link}\">{shown}</a>{length}</li>");
    }
    html.push_str("</ul>\n");
    if listing.more
        && let Some(last) = listing.files.last()
    {
        let last = utf8_percent_encode(&last.name, NON_ALPHANUMERIC);
        let _ = writeln!(html, "<p><a href=\"?after={last}\">more</a></p>");
    }
    html.push_str("</body></html>\n");
    Ok(html)
}

/// A name as it stands in a path; slashes stay.
pub(super) fn encoded(name: &str) -> String {
    utf8_percent_encode(name, PATH).to_string()
}

/// Text as it stands in a page.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // They would be shown otherwise than they stand there.
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// What stands for itself in a path: RFC 3986, unreserved, and the slash.
const PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// So many entries are on one page.
const ENTRIES_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_part_of_the_page_they_stand_in() {
        assert_eq!(escaped("<a href='x'>&\"\n"), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;\u{fffd}");
        assert_eq!(encoded("a b/к?#%\"<"), "a%20b/%D0%BA%3F%23%25%22%3C");
    }
}
