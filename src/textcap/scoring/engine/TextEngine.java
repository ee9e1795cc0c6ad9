package textcap;

import java.io.Reader;
import java.util.Arrays;
import java.util.List;
import javax.script.*;

/** Stands in for the JavaScript that Java lost in version 15, for the one script that SPICE runs: its text as it is. */
public final class TextEngine extends AbstractScriptEngine implements ScriptEngineFactory {
    @Override public Object eval(String script, ScriptContext context) throws ScriptException {
        if (!script.startsWith("result = JSON.stringify(JSON.parse(jsonString)")) {
            throw new ScriptException("this engine knows one script only, and not: " + script);
        }
        Bindings names = context.getBindings(ScriptContext.ENGINE_SCOPE);
        names.put("result", names.get("jsonString"));
        return names.get("result");
    }

    @Override public Object eval(Reader reader, ScriptContext context) throws ScriptException {
        throw new ScriptException("this engine takes its script as text");
    }

    @Override public Bindings createBindings() { return new SimpleBindings(); }
    @Override public ScriptEngineFactory getFactory() { return this; }
    @Override public ScriptEngine getScriptEngine() { return new TextEngine(); }
    @Override public List<String> getNames() { return Arrays.asList("JavaScript"); }
    @Override public List<String> getExtensions() { return Arrays.asList(); }
    @Override public List<String> getMimeTypes() { return Arrays.asList(); }
    @Override public String getEngineName() { return "textcap"; }
    @Override public String getEngineVersion() { return "1"; }
    @Override public String getLanguageName() { return "JavaScript"; }
    @Override public String getLanguageVersion() { return "1"; }
    @Override public Object getParameter(String key) { return null; }
    @Override public String getMethodCallSyntax(String object, String method, String... arguments) { return ""; }
    @Override public String getOutputStatement(String text) { return ""; }
    @Override public String getProgram(String... statements) { return ""; }
}
