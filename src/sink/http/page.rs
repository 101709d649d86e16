//! The web page at `/`, part of the binary.

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Only what this server itself sends may run, be shown or be asked.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// Path, content type and content of each file.
const FILES: [(&str, &str, &str); 3] = [
    (
        "/",
        "text/html; charset=utf-8",
        include_str!("../../../web/index.html"),
    ),
    (
        "/app.js",
        "text/javascript; charset=utf-8",
        include_str!("../../../web/app.js"),
    ),
    (
        "/style.css",
        "text/css; charset=utf-8",
        include_str!("../../../web/style.css"),
    ),
];

/// The routes of the page.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| {
            let answer = move || async move {
                (
                    [
                        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
                        (header::CONTENT_SECURITY_POLICY, POLICY),
                        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
                    ],
                    content,
                )
                    .into_response()
            };
            router.route(path, get(answer))
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::FILES;

    const HTML: &str = FILES[0].2;
    const SCRIPT: &str = FILES[1].2;

    /// Keys of an object literal whose values are strings in single quotes.
    fn keys(literal: &str) -> BTreeSet<&str> {
        // Every second piece lies between quotes; the key stands right before them.
        literal
            .split('\'')
            .step_by(2)
            .filter_map(|outside| {
                outside
                    .trim_end()
                    .strip_suffix(':')?
                    .rsplit([' ', ',', '{', '\n'])
                    .next()
            })
            .collect()
    }

    /// What stands between `before` and the next `after`, everywhere.
    fn all<'a>(text: &'a str, before: &'a str, after: char) -> impl Iterator<Item = &'a str> {
        text.split(before)
            .skip(1)
            .filter_map(move |rest| rest.split(after).next())
    }

    fn words(language: &str) -> BTreeSet<&'static str> {
        let (_, rest) = SCRIPT.split_once(&format!("\n  {language}: {{")).unwrap();
        keys(rest.split_once("\n  },").unwrap().0)
    }

    #[test]
    fn both_languages_have_every_word_of_the_page() {
        let (en, zh) = (words("en"), words("zh"));
        assert!(en.len() > 150, "{}", en.len());
        assert_eq!(en, zh);
        for word in all(HTML, "data-t=\"", '"').chain(all(HTML, "data-l=\"", '"')) {
            assert!(en.contains(word), "index.html: {word}");
        }
        for word in all(SCRIPT, " t('", '\'').chain(all(SCRIPT, "(t('", '\'')) {
            assert!(en.contains(word), "app.js: {word}");
        }
    }

    #[test]
    fn the_script_finds_every_element_that_it_asks_for() {
        let ids: BTreeSet<&str> = all(HTML, " id=\"", '"').collect();
        for id in all(SCRIPT, "$('", '\'') {
            assert!(ids.contains(id), "index.html has no element with the id {id}");
        }
    }

    #[test]
    fn texts_enter_the_page_as_text() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"] {
            assert!(!SCRIPT.contains(way), "{way}");
        }
    }
}
