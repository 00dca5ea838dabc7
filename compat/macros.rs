// SPDX-License-Identifier: GPL-2.0

//! The attributes of the stand-in for the crate `kernel`. The compiler runs them, on the machine that builds.

extern crate proc_macro;

use proc_macro::{
    Delimiter,
    Group,
    TokenStream,
    TokenTree, //
};

/// A struct that is made where it stays. `#[pin]` is on the fields that [`PinInit`] makes, `#[pin_data(PinnedDrop)]`
/// on a struct that `#[pinned_drop]` drops.
///
/// There is nothing to be generated: no reference to a field of a pinned value is handed out here, and a field that
/// must not be moved has the whole struct be so (`!Unpin`).
///
/// [`PinInit`]: ../kernel/init/trait.PinInit.html
#[proc_macro_attribute]
pub fn pin_data(_args: TokenStream, item: TokenStream) -> TokenStream {
    let mut fields = true;
    // The fields are the last group of braces.
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    for token in tokens.iter_mut().rev() {
        if let TokenTree::Group(group) = token {
            if fields && group.delimiter() == Delimiter::Brace {
                *token = with_content(group, without_pin(group.stream()));
                fields = false;
            }
        }
    }
    tokens.into_iter().collect()
}

/// Implements `PinnedDrop`, and [`Drop`] with it.
#[proc_macro_attribute]
pub fn pinned_drop(_args: TokenStream, item: TokenStream) -> TokenStream {
    let mut tokens: Vec<TokenTree> = item.into_iter().collect();
    let Some(TokenTree::Group(body)) = tokens.pop() else {
        panic!("#[pinned_drop] is for an impl");
    };
    // `impl<...>`, and `for ...`.
    let is_trait = |token: &TokenTree| matches!(token, TokenTree::Ident(name) if name.to_string() == "PinnedDrop");
    let Some(middle) = tokens.iter().position(is_trait) else {
        panic!("#[pinned_drop] is for an impl of PinnedDrop");
    };
    let [generics, of]: [TokenStream; 2] =
        [&tokens[..middle], &tokens[middle + 1..]].map(|tokens| tokens.iter().cloned().collect());
    let body = with_argument(body.stream());
    let source = format!(
        "{generics} ::kernel::init::PinnedDrop {of} {{ {body} }}

        {generics} ::core::ops::Drop {of} {{
            fn drop(&mut self) {{
                // SAFETY: The value is pinned, and this is its drop.
                unsafe {{
                    ::kernel::init::PinnedDrop::drop(
                        ::core::pin::Pin::new_unchecked(self),
                        ::kernel::init::OnlyFromDrop::new(),
                    )
                }}
            }}
        }}"
    );
    match source.parse() {
        Ok(tokens) => tokens,
        Err(error) => panic!("#[pinned_drop]: {error}"),
    }
}

/// Returns the fields without the attributes `#[pin]`.
fn without_pin(fields: TokenStream) -> TokenStream {
    let mut kept: Vec<TokenTree> = Vec::new();
    for token in fields {
        if matches!(&token, TokenTree::Group(group) if group.to_string() == "[pin]") {
            kept.pop();
        } else {
            kept.push(token);
        }
    }
    kept.into_iter().collect()
}

/// Returns `fn drop` with an argument more.
fn with_argument(body: TokenStream) -> TokenStream {
    let mut done = false;
    body.into_iter()
        .map(|token| match token {
            TokenTree::Group(group) if !done && group.delimiter() == Delimiter::Parenthesis => {
                done = true;
                let more: TokenStream = ", _: ::kernel::init::OnlyFromDrop"
                    .parse()
                    .unwrap_or_default();
                with_content(&group, group.stream().into_iter().chain(more).collect())
            }
            other => other,
        })
        .collect()
}

/// Returns a group that has other tokens.
fn with_content(group: &Group, content: TokenStream) -> TokenTree {
    let mut other = Group::new(group.delimiter(), content);
    other.set_span(group.span());
    TokenTree::Group(other)
}
