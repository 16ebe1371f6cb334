// Reads request targets, one on each line, and prints how Java's parsers read the path of each, separated by tabs.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.URI;
import java.net.URL;
import java.net.URLDecoder;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;

import static java.nio.charset.StandardCharsets.UTF_8;

public class Parser {
    static final URI BASE = URI.create("http://api.example/");

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        PrintStream out = new PrintStream(System.out, false, UTF_8);
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String target = line;
            String withoutParameters = target.split("\\?")[0].replaceAll(";[^/]*", "");
            List<String> readings = new ArrayList<>();
            add(readings, () -> new URI(target).getPath());
            add(readings, () -> new URI(target).getRawPath());
            add(readings, () -> new URI(target).normalize().getPath());
            add(readings, () -> new URI(target).normalize().getRawPath());
            add(readings, () -> BASE.resolve(target).getPath());
            add(readings, () -> BASE.resolve(target).getRawPath());
            add(readings, () -> new URL(BASE.toURL(), target).getPath());
            add(readings, () -> URLDecoder.decode(new URL(BASE.toURL(), target).getPath(), UTF_8));
            // Servlet containers remove parameters, then decode, then normalise (Servlet 6.0 section 3.5.2).
            add(readings, () -> withoutParameters);
            add(readings, () -> URLDecoder.decode(withoutParameters.replace("+", "%2B"), UTF_8));
            add(readings, () -> Path.of(URLDecoder.decode(withoutParameters, UTF_8)).normalize().toString());
            out.println(String.join("\t", readings));
        }
        out.flush();
    }

    static void add(List<String> readings, Callable<String> parse) {
        try {
            readings.add(parse.call());
        } catch (Exception refused) {
            // The parser refuses the target.
        }
    }
}
