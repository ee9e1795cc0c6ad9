package textcap;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.reflect.Method;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.zip.GZIPInputStream;
import java.util.zip.GZIPOutputStream;

/**
 * Runs METEOR on requests from the standard input, with a paraphrase table that has only what these can match.
 *
 * METEOR spends most of its time on reading its table of five million paraphrases. One whose words do not all occur in
 * the captions never matches, so the scores are the same without it.
 *
 * Arguments: the paraphrase table, and the arguments of METEOR.
 */
public final class Meteor {
    private static final int MASK = (1 << 20) - 1; // a word that shares its number with another only keeps more
    private static final int ENGLISH = 0;
    private static final int LONGEST_ENTRY = 1 << 16;

    public static void main(String[] words) throws Exception {
        byte[] requests = readAll(System.in);
        Path kept = Files.createTempFile("paraphrases", ".gz");
        try (InputStream table = new GZIPInputStream(Files.newInputStream(Paths.get(words[0])), 1 << 16);
                OutputStream out = new GZIPOutputStream(Files.newOutputStream(kept))) {
            filter(table, wordsOf(new String(requests, StandardCharsets.UTF_8)), out);
        }
        List<String> arguments = new ArrayList<>(Arrays.asList(words).subList(1, words.length));
        arguments.addAll(Arrays.asList("-a", kept.toString()));
        System.setIn(new ByteArrayInputStream(requests));
        Method main = Class.forName("Meteor").getMethod("main", String[].class);
        main.invoke(null, (Object) arguments.toArray(new String[0]));
    }

    /** Returns which numbers of words occur, after METEOR's own normalisation. */
    private static boolean[] wordsOf(String requests) throws Exception {
        Method normalize = Class.forName("edu.cmu.meteor.util.Normalizer")
            .getMethod("normalizeLine", String.class, int.class, boolean.class);
        boolean[] known = new boolean[MASK + 1];
        known[0] = true; // between two spaces
        for (String caption : new HashSet<>(Arrays.asList(requests.split("\\|\\|\\||\n")))) {
            String normal = (String) normalize.invoke(null, caption, ENGLISH, true);
            for (String word : normal.toLowerCase().split("\\s+")) {
                int number = 0;
                for (byte one : word.getBytes(StandardCharsets.UTF_8)) {
                    number = 31 * number + one;
                }
                known[number & MASK] = true;
            }
        }
        return known;
    }

    /** Copies the entries with known words; each is three lines: a probability, a phrase and a paraphrase. */
    private static void filter(InputStream table, boolean[] known, OutputStream out) throws IOException {
        byte[] block = new byte[1 << 16], entry = new byte[LONGEST_ENTRY];
        int length = 0, line = 0, number = 0;
        boolean isKept = true;
        for (int n; (n = table.read(block)) > 0; ) {
            for (int i = 0; i < n; i++) {
                byte one = block[i];
                entry[length++] = one;
                if (one != ' ' && one != '\n') {
                    number = 31 * number + one;
                    continue;
                }
                isKept &= line == 0 || known[number & MASK];
                number = 0;
                if (one == '\n' && ++line == 3) {
                    if (isKept) {
                        out.write(entry, 0, length);
                    }
                    length = line = 0;
                    isKept = true;
                }
            }
        }
    }

    private static byte[] readAll(InputStream input) throws IOException {
        ByteArrayOutputStream all = new ByteArrayOutputStream();
        byte[] block = new byte[1 << 16];
        for (int n; (n = input.read(block)) > 0; ) {
            all.write(block, 0, n);
        }
        return all.toByteArray();
    }
}
