package textcap;

import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.util.Arrays;

/**
 * Runs the main class of another program, and ends when the process that started it dies or closes the pipe to it.
 *
 * Arguments: how often to run it, the file that it reads as its standard input, the main class, and its arguments.
 * After each run it makes an empty file beside the input, named with ".done", and begins the next when that is deleted.
 */
public final class Runner {
    private static final int POLL_MS = 20;

    public static void main(String[] words) throws Exception {
        InputStream pipe = System.in;
        Thread watch = new Thread(() -> waitForEnd(pipe));
        watch.setDaemon(true);
        watch.start();
        File done = new File(words[1] + ".done");
        for (int left = Integer.parseInt(words[0]); left > 0; left--) {
            while (done.exists()) {
                Thread.sleep(POLL_MS);
            }
            try (InputStream input = new FileInputStream(words[1])) {
                System.setIn(input);
                run(words[2], Arrays.copyOfRange(words, 3, words.length));
            }
            done.createNewFile();
        }
        System.out.flush();
        System.exit(0);
    }

    private static void run(String name, String[] words) throws Exception {
        Throwable reason;
        try {
            Method main = Class.forName(name).getMethod("main", String[].class);
            main.setAccessible(true); // the class itself need not be public
            main.invoke(null, (Object) words);
            return;
        } catch (InvocationTargetException error) {
            reason = error.getCause();
        } catch (ReflectiveOperationException error) {
            reason = error;
        }
        System.err.print("Exception in thread \"main\" ");
        reason.printStackTrace();
        Runtime.getRuntime().halt(1); // other threads of the program would keep the process alive
    }

    private static void waitForEnd(InputStream pipe) {
        try {
            while (pipe.read() >= 0) { }
        } catch (IOException error) {
            // it is closed as well
        }
        Runtime.getRuntime().halt(1);
    }
}
