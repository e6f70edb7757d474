# Reads the training document and prints shell assignments for legion-script, with every value in single quotes.
# A small JSON reader: objects, arrays, strings with their escapes, numbers, true, false, null.
BEGIN { text = ""; quote = sprintf("%c", 39) }
{ text = text $0 "\n" }
END {
    at = 1
    value("")
    if (failed) exit 1
    printf "set --"
    for (i = 0; i < words; i++) printf " %s", shell(word[i])
    print ""
}

function shell(s) {
    gsub(quote, quote "\\" quote quote, s)
    return quote s quote
}

function space() {
    while (substr(text, at, 1) ~ /[ \t\r\n]/) at++
}

function found(path, s,    name) {
    if (path == ".entrypoint") print "entrypoint=" shell(s)
    else if (path == ".arguments.requireModel") print "require_model=" shell(s)
    else if (path ~ /^\.args\./) word[words++] = s
    else if (path ~ /^\.hyperParameters\./) {
        name = toupper(substr(path, 18))
        gsub(/[^A-Z0-9_]/, "_", name)
        print "export LEGION_PARAM_" name "=" shell(s)
    }
}

function value(path,    c, start, n, key) {
    if (failed) return
    space()
    c = substr(text, at, 1)
    if (c == "{" || c == "[") {
        at++
        space()
        n = 0
        while (substr(text, at, 1) !~ /[]}]/ && !failed && at <= length(text)) {
            key = n++
            if (c == "{") {
                key = string()
                space()
                if (substr(text, at, 1) != ":") failed = 1
                at++
            }
            value(path "." key)
            space()
            if (substr(text, at, 1) == ",") { at++; space() }
        }
        at++
    } else if (c == "\"") {
        found(path, string())
    } else {
        start = at
        while (at <= length(text) && substr(text, at, 1) ~ /[-+.0-9A-Za-z]/) at++
        if (at == start) failed = 1
        else found(path, substr(text, start, at - start))
    }
}

function string(    out, c, code) {
    if (substr(text, at, 1) != "\"") { failed = 1; return "" }
    at++
    out = ""
    while (at <= length(text)) {
        c = substr(text, at++, 1)
        if (c == "\"") return out
        if (c != "\\") { out = out c; continue }
        c = substr(text, at++, 1)
        if (c == "n") out = out "\n"
        else if (c == "t") out = out "\t"
        else if (c == "r") out = out "\r"
        else if (c == "b") out = out "\b"
        else if (c == "f") out = out "\f"
        else if (c == "u") {
            code = hex(substr(text, at, 4))
            at += 4
            # JSON may contain other characters than ASCII unchanged. Escaped ones become UTF-8 here.
            if (code >= 55296 && code < 56320 && substr(text, at, 2) == "\\u") {
                code = 65536 + (code - 55296) * 1024 + hex(substr(text, at + 2, 4)) - 56320
                at += 6
            }
            out = out utf8(code)
        } else out = out c
    }
    failed = 1
    return out
}

function hex(s,    i, n) {
    n = 0
    for (i = 1; i <= length(s); i++) n = n * 16 + index("0123456789abcdef", tolower(substr(s, i, 1))) - 1
    return n
}

# Runs in the C locale, where %c is a byte for every awk.
function utf8(n) {
    if (n < 128) return sprintf("%c", n)
    if (n < 2048) return sprintf("%c", 192 + int(n / 64)) sprintf("%c", 128 + n % 64)
    if (n < 65536) return sprintf("%c", 224 + int(n / 4096)) sprintf("%c", 128 + int(n / 64) % 64) sprintf("%c", 128 + n % 64)
    return sprintf("%c", 240 + int(n / 262144)) sprintf("%c", 128 + int(n / 4096) % 64) sprintf("%c", 128 + int(n / 64) % 64) sprintf("%c", 128 + n % 64)
}
