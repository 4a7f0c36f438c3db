import java.io.OutputStream;
import java.lang.reflect.Method;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.InternalSettingsPreparer;
import org.elasticsearch.node.Node;
import org.elasticsearch.plugins.PluginBundle;
import org.elasticsearch.plugins.PluginsLoader;

/**
 * One Elasticsearch node on the loopback interface, of the server's own jars and nothing but HTTP beside them.
 *
 * Arguments: home folder, data folder, HTTP port, transport port. Says STARTED when it serves, and ends when its
 * standard input does: it never outlives the process that started it.
 */
public final class ElasticsearchNode {
    public static void main(String[] arguments) throws Exception {
        Path home = Path.of(arguments[0]).toAbsolutePath();
        Settings settings = Settings.builder()
            .put("path.home", home.toString())
            .put("path.data", arguments[1])
            .put("http.port", arguments[2])
            .put("transport.port", arguments[3])
            .put("network.host", "127.0.0.1")
            .put("discovery.type", "single-node")
            .put("cluster.name", "spanloom-test")
            .put("node.name", "node-1")
            .put("transport.type", "netty4")
            .put("http.type", "netty4")
            // A full disk of the machine that tests is not the tests' business.
            .put("cluster.routing.allocation.disk.threshold_enabled", false)
            .build();
        LogConfigurator.configureESLogging();
        Environment environment =
            InternalSettingsPreparer.prepareEnvironment(settings, Map.of(), home.resolve("config"), () -> "node-1");
        PluginsLoader plugins = PluginsLoader.createPluginsLoader(modules(environment.modulesDir()), Set.of(), Map.of());
        try (Node node = new Node(environment, plugins)) {
            node.start();
            System.out.println("STARTED");
            System.in.transferTo(OutputStream.nullOutputStream());
        }
        System.exit(0);
    }

    /** PluginsLoader.loadModulesBundles, which has a second parameter from version 9 on: whether it may use native code. */
    @SuppressWarnings("unchecked")
    private static Set<PluginBundle> modules(Path folder) throws Exception {
        Method load = Arrays.stream(PluginsLoader.class.getMethods())
            .filter(method -> method.getName().equals("loadModulesBundles"))
            .findFirst()
            .orElseThrow();
        Object[] given = load.getParameterCount() == 1 ? new Object[] {folder} : new Object[] {folder, true};
        return (Set<PluginBundle>) load.invoke(null, given);
    }
}
